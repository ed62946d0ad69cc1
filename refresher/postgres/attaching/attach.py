"""Attaches and detaches a table: what `refresher attach` and `detach` do in the database."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from refresher.domain.attachment import (
    AnyMapping,
    Table,
    Tables,
    mapping_of,
    name_of,
    triggers_of,
)
from refresher.domain.attachment_check import Function, Standing
from refresher.domain.attachment_obstacles import obstacles
from refresher.domain.errors import DatabaseBusy
from refresher.postgres.attaching.catalog import read_table, read_tables
from refresher.postgres.attaching.conditions import SEARCH_PATH, with_conditions
from refresher.postgres.attaching.script import (
    attach_script,
    bodies,
    command_of,
    count_script,
    detach_script,
    trigger_definitions,
)
from refresher.postgres.attaching.trial import cover_refusal
from refresher.postgres.database import SCAN_SECONDS, Pool, Pooled, acquired
from refresher.postgres.failures import RightMissingError, first_line
from refresher.postgres.naming import schema_of
from refresher.postgres.statements import statement

#: For the locks on the tables. The scripts say how long one may wait for each.
LOCK_TRIES: Final = 10
#: Tables of ours that the scripts lock.
OURS: Final = ("refresher.videos", "refresher.attachments")
#: Between two tries, so that others come in.
BREATH_SECONDS: Final = 0.3
#: Accounts of which a transaction deletes the videos.
ACCOUNTS_AT_ONCE: Final = 100
#: Rows of the queues that a transaction deletes.
TOLD_AT_ONCE: Final = 100_000

ATTACHED_ELSEWHERE: Final = statement("attached_elsewhere")
ATTACHED_TRIGGERS: Final = statement("attached_triggers")
STORED_ATTACHMENT: Final = statement("stored_attachment")
ATTACHMENT_STANDING: Final = statement("attachment_standing")
FORGET_VIDEOS: Final = statement("forget_videos")
FORGET_TOLD: Final = statement("forget_told")
FORGET_ATTACHMENT: Final = statement("forget_attachment")


class AttachRefusedError(Exception):
    """The table cannot be attached or detached as asked; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the application's table holds: videos, or accounts with tokens."""

    rows: int
    #: Keys of the account table that lead to several open_ids, and one of them.
    ambiguous: int
    ambiguous_one: str | None
    #: What stands in the table more than once, and one of it.
    repeated: int
    repeated_one: str | None
    #: Rows of a user without an open_id, and one such user.
    without_open_id: int
    without_open_id_one: str | None
    #: Video IDs that are empty or longer than 20 characters; tokens that do not look like TikTok's.
    unusable: int
    unusable_one: str | None
    #: Videos of accounts that refresher.accounts does not have, and these accounts.
    waiting_rows: int
    waiting_accounts: int
    #: Accounts of which another attached table has brought other tokens, and one of them.
    held: int
    held_one: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """An attachment, as it is stored."""

    attachment: int
    name: str
    mapping: AnyMapping
    #: When its first walk, or a later one, was complete.
    walked_at: datetime | None
    detaching: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A mapping that can be attached, with what the catalogue says."""

    mapping: AnyMapping
    table: Table
    tables: Tables
    name: str
    #: What attaches it.
    script: str


async def plan(pool: Pool, mapping: AnyMapping, version: str) -> Plan:
    """What attaching would do. Raises `AttachRefusedError`, `DatabaseUnavailable`."""
    async with acquired(pool) as connection:
        tables = await _tables(connection, mapping)
        for obstacle in obstacles(mapping, tables):
            raise AttachRefusedError(obstacle)
        table = tables.table
        assert table is not None  # noqa: S101 - an obstacle otherwise
        await _refuse_taken(connection, table)
    return Plan(mapping, table, tables, name_of(table), attach_script(mapping, tables, version))


async def _tables(connection: Pooled, mapping: AnyMapping) -> Tables:
    """What the catalogue says, and what could be tried."""
    tables = await read_tables(connection, mapping)
    refusal = await cover_refusal(connection, mapping, tables.table)
    return replace(await with_conditions(connection, mapping, tables), cover_refusal=refusal)


async def _refuse_taken(connection: Pooled, table: Table) -> None:
    """A name that is stored for another table, or a table that has another name."""
    taken = await connection.fetch(*ATTACHED_ELSEWHERE(name=name_of(table), table=table.quoted))
    for row in taken:
        raise AttachRefusedError(
            f"{table.shown}: expected a table that is not attached, but the attachment of "
            f"{row['told']} has its name or its triggers: refresher detach --table {row['told']}"
        )


async def count(pool: Pool, planned: Plan) -> Counts:
    """What the application's table holds. Reads all of it. Raises `DatabaseUnavailable`."""
    query = count_script(planned.mapping, planned.tables)
    async with acquired(pool) as connection, connection.transaction():
        await connection.execute(f"SET LOCAL search_path = {SEARCH_PATH}")
        row = await connection.fetchrow(query, timeout=SCAN_SECONDS)
    assert row is not None  # noqa: S101 - it aggregates
    return Counts(**dict(row))


async def attach(pool: Pool, planned: Plan) -> None:
    """Make the functions and triggers; nothing is read or added yet.

    One whose first walk was never complete is attached again. Raises `AttachRefusedError`,
    `DatabaseUnavailable`.
    """
    stored = await read_stored(pool, planned.mapping.table)
    if stored and stored.detaching:
        raise AttachRefusedError(f"{planned.table.shown}: detach was not completed: run it again")
    if stored and (stored.walked_at or stored.mapping != planned.mapping):
        raise AttachRefusedError(
            f"{planned.table.shown} is attached already: {command_of(stored.mapping)}; to change "
            f"that, first: refresher detach --table {planned.mapping.table}"
        )
    for taken in _taken_triggers(planned):
        raise AttachRefusedError(taken)
    tables = [each.quoted for each in (planned.table, planned.tables.accounts) if each]
    await _under_locks(pool, tables, planned.script)


def _taken_triggers(planned: Plan) -> Iterator[str]:
    tables = planned.tables
    ours = triggers_of(planned.name, joined=tables.accounts is not None)
    our_function = f"{planned.table.our_schema}.attached_{planned.name}_"
    for table in filter(None, (tables.table, tables.accounts)):
        for name, trigger in table.triggers.items():
            if name in ours and not trigger.calls.startswith(our_function):
                yield (
                    f"{table.shown}: expected no trigger {name}, but there is one, which calls "
                    f"{trigger.calls}: rename it"
                )


async def detach(
    pool: Pool, stored: Stored, *, keep_videos: bool, on_progress: Callable[[int], None]
) -> int:
    """Take back what `attach` made, and the videos that it added; returns how many.

    May be run again where it was interrupted. `on_progress` hears of videos taken away. Raises
    `AttachRefusedError`, `DatabaseUnavailable`.
    """
    async with acquired(pool) as connection:
        triggers = await connection.fetch(*ATTACHED_TRIGGERS(name=stored.name))
        schema = schema_of(connection)
    script = detach_script(schema, stored.name, [tuple(row) for row in triggers])
    await _under_locks(pool, sorted({row["table"] for row in triggers}), script)
    await _forget_told(pool, stored)
    forgotten = 0 if keep_videos else await _forget_videos(pool, stored, on_progress)
    async with acquired(pool) as connection:
        await connection.execute(*FORGET_ATTACHMENT(name=stored.name))
    return forgotten


async def _forget_told(pool: Pool, stored: Stored) -> None:
    """Not with the tables locked: where no daemon runs, very much may have been told."""
    left = True
    while left:
        async with acquired(pool) as connection:
            left = await connection.fetchval(*FORGET_TOLD(name=stored.name, most=TOLD_AT_ONCE)) > 0


async def _forget_videos(pool: Pool, stored: Stored, on_progress: Callable[[int], None]) -> int:
    forgotten = 0
    after: str | None = ""
    while after is not None:
        step = FORGET_VIDEOS(attachment=stored.attachment, after=after, accounts=ACCOUNTS_AT_ONCE)
        async with acquired(pool) as connection:
            (row,) = await connection.fetch(*step, timeout=SCAN_SECONDS)
        forgotten, after = forgotten + row["videos"], row["last"]
        on_progress(forgotten)
    return forgotten


async def read_stored(pool: Pool, told: str) -> Stored | None:
    """The attachment of a table, as the operator names it; None if it is not attached.

    Raises `DatabaseUnavailable`.
    """
    async with acquired(pool) as connection:
        table = await read_table(connection, told)
        row = await connection.fetchrow(
            *STORED_ATTACHMENT(told=told, table=table.quoted if table else None)
        )
    if row is None:
        return None
    values = dict(row)
    mapping = mapping_of(values.pop("kind"), json.loads(values["mapping"]))
    return Stored(**(values | {"mapping": mapping}))


async def standing(pool: Pool, stored: Stored, version: str) -> Standing:
    """How an attachment is, and how it should be. Raises `DatabaseUnavailable`."""
    async with acquired(pool) as connection:
        tables = await _tables(connection, stored.mapping)
        row = await connection.fetchrow(*ATTACHMENT_STANDING(name=stored.name))
    assert row is not None  # noqa: S101 - it is stored
    script = ""
    if not any(obstacles(stored.mapping, tables)):
        script = attach_script(stored.mapping, tables, version)
    functions = json.loads(row["functions"] or "{}")
    return Standing(
        **(
            dict(row)
            | {
                "name": stored.name,
                "mapping": stored.mapping,
                "tables": tables,
                "functions": {name: Function(**each) for name, each in functions.items()},
                "expected": bodies(script),
                "expected_triggers": trigger_definitions(script),
            }
        )
    )


async def _under_locks(pool: Pool, tables: Sequence[str], script: str) -> None:
    """Run the script in one transaction, which locks the tables against writers.

    In short tries: while we wait for a lock, everybody who writes the table waits behind us.
    """
    for left in reversed(range(LOCK_TRIES)):
        try:
            async with acquired(pool) as connection, connection.transaction():
                await connection.execute(script, timeout=SCAN_SECONDS)
                return
        except DatabaseBusy as error:
            if not left:
                raise AttachRefusedError(
                    f"somebody holds a lock on one of {', '.join((*tables, *OURS))}: "
                    "try again, or end that transaction"
                ) from error
            await asyncio.sleep(BREATH_SECONDS)
        except RightMissingError as error:
            raise AttachRefusedError(
                f"{first_line(error)}: run it as the owner of {', '.join(tables)}; if you do, that "
                "role lacks a right in our schema"
            ) from error
