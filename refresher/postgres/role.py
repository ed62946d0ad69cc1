"""What the role may do and see: asked at the start, as it would only look like no work later."""

from typing import Final

from refresher.postgres.database import (
    POOL_SIZE,
    READ_ONLY,
    SQL_LASTING_READ_ONLY,
    DatabaseRefusedError,
    Pool,
    connection,
)

# Of our tables those whose rows a policy may hide, and whether any lets this role see or change
# some. Without one every row is hidden.
SQL_HIDDEN: Final = """
SELECT relname::text,
       count(polname) FILTER (WHERE polcmd IN ('*', 'r'))
       * count(polname) FILTER (WHERE polcmd IN ('*', 'w')) > 0 AS allowed
FROM pg_class
LEFT JOIN pg_policy
    ON polrelid = pg_class.oid
    AND polpermissive
    AND EXISTS (
        SELECT FROM unnest(polroles) AS chosen
        WHERE chosen = 0 OR pg_has_role(current_user, chosen, 'USAGE')
    )
WHERE relnamespace = 'refresher'::regnamespace
    AND relkind IN ('r', 'p')
    AND row_security_active(pg_class.oid)
GROUP BY relname
ORDER BY relname
"""
SQL_CONNECTIONS: Final = """
SELECT least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1))
FROM pg_roles, pg_database
WHERE rolname = current_user
    AND datname = current_database()
    AND NOT rolsuper
"""


async def check_role(pool: Pool) -> list[str]:
    """The tables of which policies let the role see a part, which may be all.

    Raises `DatabaseRefusedError` where it sees nothing or may write nothing, else
    `DatabaseUnavailable`.
    """
    async with connection(pool) as taken:
        if await taken.fetchval(SQL_LASTING_READ_ONLY):
            raise DatabaseRefusedError(READ_ONLY)
        hidden = await taken.fetch(SQL_HIDDEN)
    if none_seen := [row["relname"] for row in hidden if not row["allowed"]]:
        raise DatabaseRefusedError(
            f"row-level security hides every row of refresher.{', refresher.'.join(none_seen)} from"
            " the role: give it BYPASSRLS, or policies to read and write them"
        )
    return [row["relname"] for row in hidden]


async def connection_limit(pool: Pool) -> int | None:
    """Of the role or the database, where it is lower than what we open. `DatabaseUnavailable`."""
    async with connection(pool) as taken:
        limit: int | None = await taken.fetchval(SQL_CONNECTIONS)
    return limit if limit is not None and limit < POOL_SIZE else None
