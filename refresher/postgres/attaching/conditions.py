"""How the server reads the conditions that an operator gives: as they will run."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import asyncpg

from refresher.domain.attachment import AnyMapping, Condition, Table, Tables
from refresher.postgres.attaching.catalog import on_one_line
from refresher.postgres.database import Pooled
from refresher.postgres.failures import AWAY, BUSY, first_line
from refresher.postgres.naming import finished, named, schema_of
from refresher.postgres.statements import statement

CONDITION_READ: Final = statement("condition_read")
#: As the functions of an attachment run, which have it pinned.
SEARCH_PATH: Final = "pg_catalog, pg_temp"
#: Rows that a condition is tried on: what the functions raise that it calls.
TRIED_ROWS: Final = 1_000
#: Ends a function's body in the file that is made.
QUOTE: Final = "$refresher$"
#: There is no table, function or operator, or type of this name.
UNKNOWN_NAME: Final = ("42P01", "42883", "42704")
#: In a function the server writes the table's name before each column.
ROW: Final = "refresher_row"
#: As the server begins it, on a line of its own.
WHERE: Final = re.compile(r"\n\s+WHERE ")
#: Made and undone in one transaction.
TRIAL: Final = "refresher.attach_condition()"


async def with_conditions(connection: Pooled, mapping: AnyMapping, tables: Tables) -> Tables:
    """The same with the conditions of the mapping, as far as there are tables to read them by."""
    return replace(
        tables,
        where=await _condition(connection, tables.table, mapping.where),
        account_where=await _condition(connection, tables.accounts, mapping.account_where),
    )


async def _condition(
    connection: Pooled, table: Table | None, given: str | None
) -> Condition | None:
    if given is None or table is None or not (table.may_use and table.may_read and table.may_make):
        return None
    if not given.strip():
        return Condition(given, None, "there is none: leave the option out")
    if QUOTE in given or not given.isprintable():
        return Condition(given, None, f"expected one line without {QUOTE}")
    try:
        async with undone(connection):
            return await _read(connection, table, given)
    except asyncpg.InterfaceError:
        return Condition(given, None, "there is no value for a parameter")
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith((*AWAY, *BUSY)):
            raise
        return Condition(given, None, _reason(error))


async def _read(connection: Pooled, table: Table, given: str) -> Condition:
    schema = schema_of(connection)
    path: str = await connection.fetchval("SELECT current_setting('search_path')")
    await connection.execute(f"SET LOCAL search_path = {SEARCH_PATH}")
    # In triggers the rows come from another table than elsewhere, so neither can be named. What
    # closes a bracket of ours is wrong in one of the two: it cannot close this one and that one.
    # Each is sent as a single statement, as `fetch` does.
    rows = f"(SELECT * FROM {table.quoted} LIMIT {TRIED_ROWS}) AS new_rows"
    await connection.fetch(finished(f"SELECT ARRAY[{given}] FROM {rows} LIMIT 0", schema))
    function = named(TRIAL, schema)
    await connection.fetch(
        finished(
            f"CREATE FUNCTION {function} RETURNS void BEGIN ATOMIC"
            f" SELECT 1 FROM {table.quoted} AS {ROW} WHERE ({given}); END",
            schema,
        )
    )
    # As indexes and whoever creates one have it.
    await connection.fetchval("SELECT set_config('search_path', $1, true)", path)
    row = await connection.fetchrow(*CONDITION_READ(function=function))
    assert row is not None  # noqa: S101 - it was made
    if row["has_subquery"]:
        wrong = "a subquery reads other rows, whose changes nothing tells of"
        return Condition(given, None, wrong)
    if row["volatile"]:
        return Condition(given, None, f"{row['volatile']} is volatile: it may change by itself")
    await connection.execute(f"SET LOCAL search_path = {SEARCH_PATH}")
    await connection.fetch(finished(f"SELECT count(*) FROM {rows} WHERE ({given})", schema))
    return Condition(given, _shown(row["body"]))


def _shown(body: str) -> str:
    """The condition of the function that was made of it, as an index has it."""
    after = WHERE.split(body, maxsplit=1)[1].rpartition(";")[0]
    return on_one_line(after.replace(f"{ROW}.", ""))


def _reason(error: asyncpg.PostgresError) -> str:
    if (error.sqlstate or "") in UNKNOWN_NAME:
        return (
            f"{first_line(error)} (name columns without a table, and what is not in pg_catalog "
            "with its schema)"
        )
    return first_line(error)


@asynccontextmanager
async def undone(connection: Pooled) -> AsyncIterator[None]:
    """A transaction that leaves nothing behind."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()
