"""What stands in the way of an attachment: one line each, the most basic first."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from refresher.domain.attachment import (
    COVER_LENGTH,
    IDS,
    KEYS,
    MOMENTS,
    TEXTS,
    TIMES,
    WHOLE_NUMBERS,
    AnyMapping,
    Table,
    Tables,
    TokenMapping,
    VideoMapping,
    names,
)
from refresher.domain.attachment_indexes import lacking_indexes

NAME: Final = "expected a name of printable characters, without $refresher$"
#: In a condition. What stands in it is no column.
TEXT: Final = re.compile(r"'(?:[^']|'')*'")
#: Of PostgreSQL 18 on, whose default it is.
VIRTUAL: Final = (
    "is generated when it is read, so no trigger sees its value: make it GENERATED … STORED"
)


def obstacles(mapping: AnyMapping, tables: Tables) -> Iterator[str]:
    """What keeps the mapping from being attached, the most basic first; none: nothing does."""
    table, accounts = tables.table, tables.accounts
    missing = [*_no_table("--table", mapping.table, table)]
    if mapping.account_table is not None:
        missing += _no_table("--account-table", mapping.account_table, accounts)
    if missing or table is None:
        yield from missing
        return
    wrong = [*_wrong_columns(mapping, table, accounts), *_wrong_conditions(tables)]
    wrong += _twice(mapping)
    if wrong:
        yield from wrong
        return
    for each in filter(None, (table, accounts)):
        yield from _lacking_rights(each)
    if isinstance(mapping, VideoMapping):
        yield from [*_unwritable(mapping, table)] or _refused(mapping, tables)
    yield from lacking_indexes(mapping, tables)


def _wrong_columns(mapping: AnyMapping, table: Table, accounts: Table | None) -> Iterator[str]:
    if isinstance(mapping, TokenMapping):
        yield from _wrong_token_columns(mapping, table)
    else:
        yield from _wrong_video_columns(mapping, table, accounts)


def _twice(mapping: AnyMapping) -> Iterator[str]:
    """A column of the table that two options name: one of them would be written over the other."""
    options: dict[str, str] = {}
    for field in mapping.columns:
        name = getattr(mapping, field)
        option = f"--{field.replace('_', '-')}"
        if name is not None and options.setdefault(name, option) != option:
            yield f"{option}: expected another column than {options[name]}, not {name!r} again"


def _wrong_conditions(tables: Tables) -> Iterator[str]:
    for option, table, condition in (
        ("--where", tables.table, tables.where),
        ("--account-where", tables.accounts, tables.account_where),
    ):
        if table is None or condition is None:
            continue
        if condition.wrong:
            yield (
                f"{option}: expected a condition over the columns of {table.shown}, not "
                f"{condition.given!r}: {condition.wrong}"
            )
        for name, column in table.columns.items():
            if column.virtual and names(TEXT.sub("", condition.given), name):
                yield f"{option}: {table.shown}.{name} {VIRTUAL}; or write its expression here"


def _wrong_token_columns(mapping: TokenMapping, table: Table) -> Iterator[str]:
    yield from _wrong_column("--open-id", mapping.open_id, table, TEXTS)
    yield from _wrong_column("--access-token", mapping.access_token, table, TEXTS)
    for option, name, types in (
        ("--access-token-expires", mapping.access_token_expires, MOMENTS),
        ("--refresh-token", mapping.refresh_token, TEXTS),
        ("--refresh-token-expires", mapping.refresh_token_expires, MOMENTS),
        ("--scope", mapping.scope, TEXTS),
    ):
        if name is not None:
            yield from _wrong_column(option, name, table, types)
    if mapping.holder == "managed" and mapping.refresh_token is None:
        yield "--refresh-token: expected a column: the daemon renews the tokens with it"


def costly_indexes(mapping: AnyMapping, table: Table) -> Iterator[str]:
    """Indexes by which each new cover costs more. The figures: docs/decisions/0001."""
    if isinstance(mapping, TokenMapping):
        return
    written = {mapping.cover, mapping.expires} - {None}
    for index in table.indexes:
        if covered := sorted(written.intersection(index.written), key=str):
            yield (
                f"index {index.name} covers {', '.join(map(str, covered))}: each new cover is "
                "written to every index of the table (measured: 0.56 of the rows a second, 2 to 3 "
                "times the WAL); drop it if you can"
            )


def exposed_rights(table: Table, owner: str, *, is_superuser: bool) -> Iterator[str]:
    """What is said of the role that owns an attachment's functions; docs/security.md says why."""
    whose = (
        f"the functions of {table.shown} belong to {owner}, and a trigger on the table runs with "
        "its rights when a cover is written"
    )
    if is_superuser:
        yield f"{whose}: {owner} is a superuser; best attach as a table's owner that is none"
    elif owner != table.owner:
        yield f"{whose}: best attach as {table.owner}, who owns the table"


def _is_odd(name: str) -> bool:
    """Whether a name would end a comment or a function's body in the file that is made."""
    return "$refresher$" in name or not name.isprintable()


def _no_table(option: str, name: str, table: Table | None) -> Iterator[str]:
    if table is None:
        where = "" if "." in name else " in the search_path: name its schema, too"
        yield f"{option}: expected a table, not {name!r}: there is none of this name{where}"
    elif table.kind not in {"r", "p"}:
        yield f"{option}: expected a table, not {name!r}, which is something else, such as a view"
    elif table.is_temporary:
        yield f"{option}: expected a table that lasts, not {name!r}, which is temporary"
    elif table.schema == table.our_schema:
        yield f"{option}: expected a table of an application, not {name!r}: that is ours"
    elif unquotable := [each for each in (table.schema, table.name) if _is_odd(each)]:
        yield f"{option}: {NAME}, not {unquotable[0]!r}"
    elif not table.may_use or not table.may_read:
        right = "SELECT on the table" if table.may_use else f"USAGE on schema {table.schema}"
        yield f"{option}: the role may not read {table.shown}: it needs {right}"


def _wrong_video_columns(
    mapping: VideoMapping, videos: Table, accounts: Table | None
) -> Iterator[str]:
    keys = KEYS if accounts else TEXTS
    yield from _wrong_column("--video-id", mapping.video_id, videos, IDS)
    yield from _wrong_column("--account", mapping.account, videos, keys)
    if mapping.cover is not None:
        yield from _wrong_column("--cover", mapping.cover, videos, TEXTS)
    if mapping.expires is not None:
        yield from _wrong_column("--expires", mapping.expires, videos, TIMES)
    if accounts is not None:
        yield from _wrong_column("--account-key", mapping.account_key, accounts, KEYS)
        yield from _wrong_column("--open-id", str(mapping.open_id), accounts, TEXTS)
        yield from _unlike(mapping, videos, accounts)


def _wrong_column(option: str, name: str, table: Table, types: Sequence[str]) -> Iterator[str]:
    column = table.columns.get(name)
    if column is not None and _is_odd(name):
        yield f"{option}: {NAME}, not {name!r}"
    elif column is None:
        has = ", ".join(sorted(table.columns))
        yield f"{option}: expected a column of {table.shown}, not {name!r}; it has {has}"
    elif column.type not in types:
        expected = ", ".join(types)
        yield f"{option}: expected a type of {expected}, not {table.shown}.{name}: {column.shown}"
    elif column.virtual:
        yield f"{option}: {table.shown}.{name} {VIRTUAL}"


def _unlike(mapping: VideoMapping, videos: Table, accounts: Table) -> Iterator[str]:
    """The two ends of the join."""
    account = videos.columns.get(mapping.account)
    key = accounts.columns.get(mapping.account_key)
    if account and key and _family(account.type) != _family(key.type):
        yield (
            f"--account: expected the type of {accounts.shown}.{mapping.account_key} "
            f"({key.shown}), not {videos.shown}.{mapping.account}: {account.shown}"
        )


def _family(type_name: str) -> str:
    for family in (TEXTS, WHOLE_NUMBERS):
        if type_name in family:
            return family[-1]
    return type_name


def _lacking_rights(table: Table) -> Iterator[str]:
    if not table.may_trigger:
        yield f"{table.shown}: the role may not create triggers: it needs TRIGGER on the table"
    if not table.may_make:
        yield f"the role may not make functions in schema {table.our_schema}: it needs CREATE on it"
    if table.restricted:
        yield (
            f"{table.shown}: row-level security hides rows from the role: attach as its owner, or "
            "as a role with BYPASSRLS"
        )


def _unwritable(mapping: VideoMapping, videos: Table) -> Iterator[str]:
    for option, name in (("--cover", mapping.cover), ("--expires", mapping.expires)):
        column = videos.columns.get(name) if name else None
        if column is None:
            continue
        if column.generated:
            yield f"{option}: {videos.shown}.{name} is generated: nothing can be written to it"
        elif not column.may_write:
            yield f"{option}: the role may not write {videos.shown}.{name}: it needs UPDATE on it"
        elif column.length is not None and column.length < COVER_LENGTH:
            yield (
                f"{option}: {videos.shown}.{name} is {column.shown}, and covers are longer: ALTER "
                f"TABLE {videos.quoted} ALTER {column.quoted} TYPE text"
            )


def _refused(mapping: VideoMapping, tables: Tables) -> Iterator[str]:
    if tables.table and tables.cover_refusal:
        yield (
            f"--cover: {tables.table.shown}.{mapping.cover} does not take a cover such as "
            f"TikTok's: {tables.cover_refusal}"
        )
