"""The pool of connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

import asyncpg

from refresher.domain.errors import DatabaseUnavailable, StatementFailed
from refresher.domain.schema_name import USUAL_SCHEMA
from refresher.postgres.connector import Connector
from refresher.postgres.failures import (
    DRIVER_ERRORS,
    ConnectionsUsedUpError,
    available,
    is_lost,
)
from refresher.postgres.naming import Connection, connection_class, schema_of
from refresher.postgres.opening import ACQUIRE_SECONDS, RELEASE_SECONDS
from refresher.postgres.statements import statement

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[asyncpg.Record]
    Pooled = PoolConnectionProxy[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Pooled = asyncpg.pool.PoolConnectionProxy

#: The session name of the daemon's connections, except of those that wait for a lock.
APPLICATION_NAME: Final = "refresher"
#: Claim, two write-backs, release, audit and summary at once, and one more for /readyz, for what
#: operators read, one statement at a time, and for what waits for a lock. These and statements
#: about a single account wait for their turn.
POOL_SIZE: Final = 7
#: Of a replica at most: the pool's, and the one that listens.
CONNECTIONS: Final = POOL_SIZE + 1
#: How long between two tries to get a connection that was given back.
TURN_SECONDS: Final = 0.05
#: For statements that read what all accounts store.
REPORT_SECONDS: Final = 60.0
#: For statements over all rows. (With None asyncpg would take the pool's own time-out.)
SCAN_SECONDS: Final = 86_400.0

#: The revision this code was written for; a later one only adds (expand and contract).
SCHEMA_REVISION: Final = "0018"
REVISION: Final = statement("revision")
WRITTEN_TO: Final = statement("schema/written_to")


class SchemaNotMigratedError(Exception):
    """The database lacks the schema this code needs."""


class SchemaTooNewError(Exception):
    """A later version has migrated the database to a revision that this code does not know."""


@asynccontextmanager
async def connected(
    database_url: str, *, application_name: str, schema: str = USUAL_SCHEMA
) -> AsyncIterator[Pool]:
    """A pool for the cell of this schema.

    It opens connections when they are needed, so it starts without a database, too.
    """
    connector = Connector(
        database_url, application_name=application_name, schema=schema, clock=monotonic
    )
    pool = asyncpg.create_pool(
        connect=connector,
        connection_class=connection_class(schema),
        min_size=0,
        max_size=POOL_SIZE,
        # Nothing we do outlives its transaction, so there is nothing to reset.
        reset=_nothing,
    )
    await pool
    connector.pool_size = pool.get_size
    try:
        yield pool
    finally:
        pool.terminate()


@asynccontextmanager
async def acquired(pool: Pool, seconds: float = ACQUIRE_SECONDS) -> AsyncIterator["Pooled"]:
    """A connection of the pool for a few statements, each of which has a time-out.

    Raises `DatabaseUnavailable`. After an error that says the server is gone, the idle connections
    are closed, too: new ones find the server that has taken over.
    """
    connection = await _acquire(pool, seconds)
    with available():
        watching = _watch(pool, connection)
        try:
            yield connection
        except DRIVER_ERRORS as error:
            if is_lost(error):
                await _close_all(pool)
            raise
        finally:
            if watching:
                watching.cancel()
            # If it cannot be given back it is closed; what was done with it stays done.
            with suppress(*DRIVER_ERRORS):
                await pool.release(connection, timeout=RELEASE_SECONDS)


async def _acquire(pool: Pool, seconds: float) -> "Pooled":
    """If the server gives us no further connection, wait for one of those we have."""
    ends_at = monotonic() + seconds
    while True:
        try:
            with available():
                return await pool.acquire(timeout=max(0.0, ends_at - monotonic()))
        except StatementFailed as error:
            raise DatabaseUnavailable(str(error)) from error  # there is no row to blame yet
        except ConnectionsUsedUpError:
            connector = _connector(pool)
            if connector and not pool.get_size():
                await connector.opened(max(0.0, ends_at - monotonic()))
            if not pool.get_size() or monotonic() > ends_at:
                raise
        await asyncio.sleep(TURN_SECONDS)


async def opened_beside(pool: Pool) -> Connection:
    """A connection of its own to where the pool's lead. The caller terminates it.

    It is terminated, too, when the pool has no connection and is given none. Raises
    `DatabaseUnavailable`.
    """
    connector = _connector(pool)
    if connector is None:
        raise DatabaseUnavailable("the pool opens its connections itself")
    with available():
        return await connector.beside()


def _watch(pool: Pool, connection: "Pooled") -> "asyncio.Task[None] | None":
    # The pool gives out proxies; the lookout knows the connections behind them.
    connector, behind = _connector(pool), getattr(connection, "_con", None)
    return connector.lookout.watch(behind) if connector and behind else None


def _connector(pool: Pool) -> Connector | None:
    connector = getattr(pool, "_connect", None)
    return connector if isinstance(connector, Connector) else None


async def _close_all(pool: Pool) -> None:
    """Terminate idle connections; those in use are closed when they are given back."""
    await pool.expire_connections()
    # The pool itself would close each one politely, and wait for a server that is dead.
    for holder in getattr(pool, "_holders", ()):
        if holder.is_idle():
            holder.terminate()


async def _nothing(_connection: object) -> None:
    pass


async def read_revision(pool: Pool) -> str | None:
    """The revision of the schema; None where there is none. Raises `DatabaseUnavailable`."""
    async with acquired(pool) as connection:
        try:
            revision: str | None = await connection.fetchval(*REVISION())
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            revision = None
    return revision


async def check_migrated(pool: Pool) -> None:
    """Raises `SchemaNotMigratedError`, or `DatabaseUnavailable`."""
    revision = await read_revision(pool)
    async with acquired(pool) as connection:
        schema = schema_of(connection)
        if revision is None or revision < SCHEMA_REVISION:
            raise SchemaNotMigratedError(
                f"schema {schema}: expected revision {SCHEMA_REVISION} or newer, not "
                f"{revision or 'an empty database'}; run refresher migrate"
            )
        written_to = await connection.fetchval(*WRITTEN_TO())
    if written_to != schema:
        raise SchemaNotMigratedError(
            f"schema {schema}: expected a cell of its own, but its triggers write to schema "
            f"{written_to}: it was renamed or copied; give it its name back"
        )
