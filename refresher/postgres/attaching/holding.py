"""Which attached tables have tokens of an account."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from refresher.domain.attachment import TokenMapping, mapping_of
from refresher.postgres.attaching.catalog import read_tables
from refresher.postgres.attaching.script import has_tokens_script
from refresher.postgres.database import SCAN_SECONDS, Pool, Pooled, acquired
from refresher.postgres.failures import first_line
from refresher.postgres.statements import statement

TOKEN_TABLES: Final = statement("token_tables")


@dataclass(frozen=True, slots=True)
class Holder:
    """An attached table that has tokens of an account, or that may have some."""

    #: As the operator named it.
    table: str
    #: Why it cannot be read; None: it has some.
    unreadable: str | None = None


async def read_holders(pool: Pool, open_id: str) -> Sequence[Holder]:
    """The attached tables of tokens that have this account. Raises `DatabaseUnavailable`."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*TOKEN_TABLES())
        held = [await _holder(connection, row["mapping"], open_id) for row in rows]
    return [holder for holder in held if holder]


async def _holder(connection: Pooled, stored: str, open_id: str) -> Holder | None:
    mapping = mapping_of("tokens", json.loads(stored))
    assert isinstance(mapping, TokenMapping)  # noqa: S101 - of this kind
    tables = await read_tables(connection, mapping)
    if tables.table is None:
        return Holder(mapping.table, "there is no such table")
    if tables.table.restricted:
        return Holder(mapping.table, "row-level security hides rows from the role")
    try:
        script = has_tokens_script(mapping, tables.table)
        has = await connection.fetchval(script, open_id, timeout=SCAN_SECONDS)
    except KeyError as error:
        return Holder(mapping.table, f"it has no column {error}")
    except asyncpg.PostgresError as error:
        return Holder(mapping.table, first_line(error))
    return Holder(mapping.table) if has else None
