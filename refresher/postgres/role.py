"""What the role may do and see. Asked at the start: later, hidden rows look like no work."""

from typing import Final

from refresher.postgres.database import CONNECTIONS, Pool, acquired
from refresher.postgres.failures import DatabaseRefusedError
from refresher.postgres.hosts import LASTING_READ_ONLY, READ_ONLY
from refresher.postgres.statements import statement

HIDDEN_TABLES: Final = statement("hidden_tables")
CONNECTION_LIMIT: Final = statement("connection_limit")


async def check_role(pool: Pool) -> list[str]:
    """The tables of which policies show the role some rows, which may be all.

    Raises `DatabaseRefusedError` if it sees no rows or may write nothing, and
    `DatabaseUnavailable`.
    """
    async with acquired(pool) as connection:
        if await connection.fetchval(*LASTING_READ_ONLY()):
            raise DatabaseRefusedError(READ_ONLY)
        hidden = await connection.fetch(*HIDDEN_TABLES())
    if none_seen := [row["relname"] for row in hidden if not row["allowed"]]:
        raise DatabaseRefusedError(
            f"row-level security hides every row of refresher.{', refresher.'.join(none_seen)} from"
            " the role: give it BYPASSRLS, or policies to read and write them"
        )
    return [row["relname"] for row in hidden]


async def connection_limit(pool: Pool) -> int | None:
    """The limit of the role or the database, if it is lower than what we open; else None.

    Raises `DatabaseUnavailable`.
    """
    async with acquired(pool) as connection:
        limit: int | None = await connection.fetchval(*CONNECTION_LIMIT())
    return limit if limit is not None and limit < CONNECTIONS else None
