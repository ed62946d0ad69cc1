"""What the catalogue says of an application's tables."""

import json
from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from refresher.domain.attachment import AnyMapping, Column, Index, Table, Tables, Trigger
from refresher.postgres.database import Pooled
from refresher.postgres.statements import statement

#: Bytes of a name that the server keeps.
LONGEST_NAME: Final = 63
#: Schema and table.
PARTS: Final = 2

ATTACHED_TABLE: Final = statement("attached_table")


async def read_tables(connection: Pooled, mapping: AnyMapping) -> Tables:
    """The tables that a mapping names."""
    accounts = mapping.account_table
    return Tables(
        await read_table(connection, mapping.table),
        await read_table(connection, accounts) if accounts is not None else None,
    )


async def read_table(connection: Pooled, name: str) -> Table | None:
    """The table of this name, as it is written or as SQL reads it; None if there is none."""
    return await _find(connection, name.split(".", 1)) or await _find(
        connection, await _as_sql_reads(connection, name)
    )


async def _as_sql_reads(connection: Pooled, name: str) -> Sequence[str]:
    """Its parts: without quotes in small letters, within quotes with dots."""
    try:
        parts: Sequence[str] = await connection.fetchval("SELECT parse_ident($1)", name)
    except asyncpg.InvalidParameterValueError:
        return ()
    return parts


async def _find(connection: Pooled, parts: Sequence[str]) -> Table | None:
    if not 1 <= len(parts) <= PARTS or any(len(each.encode()) > LONGEST_NAME for each in parts):
        return None
    *schemas, table = parts
    schema = schemas[0] if schemas else None
    row = await connection.fetchrow(*ATTACHED_TABLE(schema=schema, table=table))
    return _table(row) if row else None


def _table(row: asyncpg.Record) -> Table:
    columns, indexes, triggers = (
        json.loads(row[name] or empty)
        for name, empty in (("columns", "{}"), ("indexes", "[]"), ("triggers", "{}"))
    )
    return Table(
        **{name: row[name] for name in _PLAIN},
        partition_keys=row["partition_keys"] or (),
        own_keys=row["own_keys"] or (),
        columns={name: Column(**column) for name, column in columns.items()},
        indexes=[_index(index) for index in indexes],
        triggers={name: Trigger(**trigger) for name, trigger in triggers.items()},
    )


def _index(said: dict[str, Any]) -> Index:
    where = said.pop("where")
    return Index(**said, where=None if where is None else on_one_line(where))


def on_one_line(condition: str) -> str:
    """As the server writes it, but for its line breaks."""
    return " ".join(condition.split())


_PLAIN: Final = (
    "schema",
    "our_schema",
    "name",
    "quoted",
    "kind",
    "is_temporary",
    "is_child",
    "may_use",
    "may_trigger",
    "may_make",
    "may_read",
    "restricted",
    "owner",
    "role",
    "role_is_superuser",
)
