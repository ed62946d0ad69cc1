"""Whether the columns that covers are written to take one: tried without a row."""

import json
from typing import Final

import asyncpg

from refresher.domain.attachment import AnyMapping, Table, TokenMapping, VideoMapping
from refresher.postgres.attaching.conditions import SEARCH_PATH, undone
from refresher.postgres.database import Pooled
from refresher.postgres.failures import AWAY, BUSY, first_line
from refresher.postgres.naming import finished, schema_of
from refresher.postgres.statements import statement

COVER_COLUMNS: Final = statement("cover_columns")
#: Of the form that real ones have.
COVER: Final = (
    "https://p16-sign-va.tiktokcdn.com/tos-maliva-p-0068/"
    "o0123456789abcdefghijklmnopqrstuvwxyz0~tplv-tiktokx-cropcenter-q:300:400:q72.jpeg"
    "?dr=14782&refresh_token=01234567&x-expires=1750489200"
    "&x-signature=0123456789abcdefghijklmno%2F%3D&t=01234567&ps=01234567&shp=01234567"
    "&shcp=01234567&idc=maliva&sc=cover&biz_tag=tt_video&s=TIKTOK_FOR_DEVELOPER"
)


async def cover_refusal(connection: Pooled, mapping: AnyMapping, table: Table | None) -> str | None:
    """Why the columns would take no cover of the form of `COVER`; None: nothing says so.

    Their types are tried, with what domains check, and the CHECK constraints over them alone. What
    depends on other columns, or on triggers, shows with a row only.
    """
    if isinstance(mapping, TokenMapping) or table is None or mapping.cover not in table.columns:
        return None
    try:
        async with undone(connection):
            await connection.execute(f"SET LOCAL search_path = {SEARCH_PATH}")
            return await _tried(connection, mapping, table)
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith((*AWAY, *BUSY)):
            raise
        return first_line(error)


async def _tried(connection: Pooled, mapping: VideoMapping, table: Table) -> str | None:
    values = {mapping.cover: f"'{COVER}'", mapping.expires: "now()"}
    written = [name for name in values if name is not None and name in table.columns]
    found = await connection.fetchrow(*COVER_COLUMNS(table=table.quoted, columns=written))
    assert found is not None  # noqa: S101 - it aggregates
    types = json.loads(found["types"])
    row = ", ".join(
        f"{values[name]}::{types[name]} AS {table.columns[name].quoted}" for name in written
    )
    cover = table.columns[written[0]].quoted
    schema = schema_of(connection)
    kept = finished(f"SELECT {cover}::text FROM (SELECT {row}) AS r", schema)
    if await connection.fetchval(kept) != COVER:
        return f"type {types[written[0]]} keeps a part of it only"
    for name, condition in json.loads(found["checks"] or "{}").items():
        holds = finished(f"SELECT {condition} FROM (SELECT {row}) AS r", schema)
        if await connection.fetchval(holds) is False:
            return f"it violates check constraint {name}"
    return None
