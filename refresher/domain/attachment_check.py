"""Is an attached table as it should be? Judged from what the catalogue and the rows say."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from refresher.domain.attachment import AnyMapping, Tables, triggers_of
from refresher.domain.attachment_obstacles import costly_indexes, exposed_rights, obstacles
from refresher.domain.spans import since

#: What was told is applied within seconds.
SLOW_SECONDS: Final = 60.0
#: A walk takes about an hour.
WALK_LATE_SECONDS: Final = 3 * 3600.0
#: Of a trigger's definition.
EVENT: Final = re.compile(r"\bAFTER (.+?) ON ")
LEVEL: Final = re.compile(r" FOR EACH (ROW|STATEMENT) ")
FUNCTION: Final = re.compile(r" EXECUTE FUNCTION (?:\w+\.)?(\w+)\(\)$")
ECHO: Final = re.compile(r"'\w+\.(carrying)'")
COLUMN: Final = re.compile(r'\bold\.("(?:[^"]|"")*"|\w+)', re.IGNORECASE)
#: What our functions set: names are found in the catalogue alone, and no lock is waited for long.
SEARCH_PATH: Final = "search_path=pg_catalog, pg_temp"
LOCK_TIMEOUT: Final = "lock_timeout="
NEW_FILE: Final = "run the file that attach --print-sql gives"


class Judgement(NamedTuple):
    outcome: Literal["ok", "warning", "problem"]
    text: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function of an attachment, as it is in the database."""

    body: str
    owner: str
    owner_is_superuser: bool
    #: It runs with its owner's rights.
    definer: bool
    #: What it sets while it runs, as `name=value`.
    settings: Sequence[str] | None
    #: Whether its owner may tell the daemons.
    tells: bool
    #: Whether the role that asks may call it.
    may_call: bool
    #: Whether its owner may read the application's tables.
    reads: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """An attachment as it is."""

    name: str
    mapping: AnyMapping
    tables: Tables
    now: datetime
    walked_at: datetime | None
    #: Since when something that was told waits; None: nothing does.
    told_rows: datetime | None
    told_covers: datetime | None
    #: Tables that have another name now, and which.
    renamed: Sequence[str] | None
    #: By name.
    functions: Mapping[str, Function]
    #: What their bodies should be.
    expected: Mapping[str, str]
    #: What their triggers should be, by name, as SQL defines them.
    expected_triggers: Mapping[str, str]
    #: The trigger on our table videos, as the server writes it; None: it is missing or disabled.
    videos_carried: str | None


def judged(standing: Standing) -> Iterator[Judgement]:
    """All that is to be said, the good as well."""
    if standing.renamed:
        table = standing.mapping.table
        yield Judgement(
            "problem",
            f"{'; '.join(standing.renamed)}: refresher detach --keep-videos --table {table}, then "
            "attach it anew",
        )
        return
    found = [Judgement("problem", text) for text in obstacles(standing.mapping, standing.tables)]
    yield from found or [
        Judgement("ok", "tables, columns, indexes and rights are as they should be")
    ]
    if found:
        return
    yield from _or_fine(_triggers(standing), "its triggers are there")
    yield from _or_fine(_functions(standing), "its functions are those of this version")
    yield from _progress(standing)
    for text in _notes(standing):
        yield Judgement("warning", text)


def _notes(standing: Standing) -> Iterator[str]:
    table = standing.tables.table
    if table is None:
        return
    yield from costly_indexes(standing.mapping, table)
    owners = {each.owner: each.owner_is_superuser for each in standing.functions.values()}
    for owner, is_superuser in sorted(owners.items()):
        yield from exposed_rights(table, owner, is_superuser=is_superuser)


def _or_fine(problems: Iterator[str], fine: str) -> Iterator[Judgement]:
    found = [Judgement("problem", text) for text in problems]
    yield from found or [Judgement("ok", fine)]


def _triggers(standing: Standing) -> Iterator[str]:
    tables = standing.tables
    present = {
        name: (table, trigger)
        for table in (tables.table, tables.accounts)
        if table
        for name, trigger in table.triggers.items()
    }
    for name in triggers_of(standing.name, joined=tables.accounts is not None):
        if name not in present:
            yield f"trigger {name} is missing: {NEW_FILE}"
        elif not present[name][1].enabled:
            table = present[name][0].quoted
            yield f"trigger {name} is disabled: ALTER TABLE {table} ENABLE TRIGGER {name}"
        elif not _is_alike(present[name][1].definition, standing.expected_triggers[name]):
            yield f"trigger {name} is another one, or for other columns: {NEW_FILE}"
    if standing.mapping.carries and not _is_alike(
        standing.videos_carried or "", standing.expected_triggers["videos_carried"]
    ):
        yield (
            "trigger videos_carried on our table videos is missing, disabled or another one: "
            f"{NEW_FILE}"
        )


def _is_alike(*definitions: str) -> bool:
    """Whether triggers have event, function and columns in common, however they are written."""
    return len({_essence(each) for each in definitions}) == 1


def _essence(definition: str) -> tuple[object, ...]:
    words = " ".join(definition.split())
    return (
        *(tuple(pattern.findall(words)) for pattern in (EVENT, LEVEL, FUNCTION, ECHO)),
        frozenset(COLUMN.findall(words)),
    )


def _functions(standing: Standing) -> Iterator[str]:
    for name, body in standing.expected.items():
        function = standing.functions.get(name)
        if function is None:
            yield f"function {name} is missing: {NEW_FILE}"
        elif function.body.strip() != body.strip():
            yield f"function {name} was made by another version or for other columns: {NEW_FILE}"
        elif not _is_guarded(name, function):
            yield f"function {name} lacks SECURITY DEFINER or one of its settings: {NEW_FILE}"
        elif name.endswith("_told") and not function.tells:
            yield (
                f"function {name}: its owner {function.owner} lacks INSERT on "
                "our table changed_rows or EXECUTE on our tell_daemons()"
            )
        elif not function.reads:
            yield f"function {name}: its owner {function.owner} may not read your tables"
        elif name.endswith(("_apply", "_look_at", "_carry", "_next")) and not function.may_call:
            yield f"function {name}: this role may not call it; if the daemon's may, all is well"


def _is_guarded(name: str, function: Function) -> bool:
    settings = function.settings or ()
    waits_shortly = any(each.startswith(LOCK_TIMEOUT) for each in settings)
    return (
        function.definer and SEARCH_PATH in settings and (waits_shortly or name.endswith("_next"))
    )


def _progress(standing: Standing) -> Iterator[Judgement]:
    for what, told_at in (("rows", standing.told_rows), ("covers", standing.told_covers)):
        if told_at and (standing.now - told_at).total_seconds() > SLOW_SECONDS:
            yield Judgement(
                "problem",
                f"changed {what} wait {since(standing.now, told_at)}: does a daemon run? Its log "
                "says attachment.failed or attachment.refused where something stands in the way",
            )
    if standing.walked_at is None:
        yield Judgement("warning", "the first walk through all accounts is not complete yet")
    elif (standing.now - standing.walked_at).total_seconds() > WALK_LATE_SECONDS:
        text = f"all accounts were last looked at {since(standing.now, standing.walked_at)} ago"
        yield Judgement("warning", f"{text}: does a daemon run?")
    else:
        ago = since(standing.now, standing.walked_at)
        yield Judgement("ok", f"all accounts were last looked at {ago} ago")
