"""The pool of connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

import asyncpg

from refresher.domain.connection_string import Host
from refresher.domain.errors import DatabaseUnavailable, StatementFailed
from refresher.postgres.connector import (
    ACQUIRE_SECONDS,
    RELEASE_SECONDS,
    SILENT_SECONDS,
    Connector,
)
from refresher.postgres.failures import (
    DRIVER_ERRORS,
    ConnectionsUsedUpError,
    available,
    is_lost,
)
from refresher.postgres.statements import statement

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[asyncpg.Record]
    Pooled = PoolConnectionProxy[asyncpg.Record]
else:
    Pool = asyncpg.Pool

#: How a daemon's sessions are named, but for those that wait for a lock.
APPLICATION_NAME: Final = "refresher"
#: Claim, two write-backs, release, audit and summary at once, and one to spare for /readyz and for
#: what waits for a lock; what an account needs by itself waits its turn.
POOL_SIZE: Final = 7
#: How long between two looks for a connection that was given back.
TURN_SECONDS: Final = 0.05
#: For statements that read what all accounts store.
REPORT_SECONDS: Final = 60.0
#: For statements over all rows. (None would mean the pool's own time-out to asyncpg.)
SCAN_SECONDS: Final = 86_400.0
#: A host that answers is looked at more and more seldom while the same statement lasts.
LONGEST_PAUSE_SECONDS: Final = 60.0

#: The revision this code was written for; a later one only adds (expand and contract).
SCHEMA_REVISION: Final = "0011"
REVISION: Final = statement("revision")


class SchemaNotMigratedError(Exception):
    """The database lacks the schema this code needs."""


@asynccontextmanager
async def connected(database_url: str, *, application_name: str) -> AsyncIterator[Pool]:
    """A pool that opens its connections when they are needed: it starts without a database, too."""
    connector = Connector(database_url, application_name=application_name)
    pool = asyncpg.create_pool(
        connect=connector,
        min_size=0,
        max_size=POOL_SIZE,
        # Nothing we do outlives its transaction, so there is nothing to reset.
        reset=_nothing,
    )
    await pool
    connector.held = pool.get_size
    try:
        yield pool
    finally:
        pool.terminate()


@asynccontextmanager
async def connection(pool: Pool, seconds: float = ACQUIRE_SECONDS) -> AsyncIterator["Pooled"]:
    """A connection for a few statements, each of which has a time-out.

    Raises `DatabaseUnavailable`. After an error that casts doubt on them, idle connections are not
    used again: new ones find the server that has taken over.
    """
    taken = await _acquired(pool, seconds)
    with available():
        watching = _watching(pool, taken)
        try:
            yield taken
        except DRIVER_ERRORS as error:
            if is_lost(error):
                await _forsake(pool)
            raise
        finally:
            if watching:
                watching.cancel()
            # One that cannot be given back is closed; what it was used for stands.
            with suppress(*DRIVER_ERRORS):
                await pool.release(taken, timeout=RELEASE_SECONDS)


async def _acquired(pool: Pool, seconds: float) -> "Pooled":
    """One of the pool's. Where the server gives no more than we have, one of those in its turn."""
    ends_at = monotonic() + seconds
    while True:
        try:
            with available():
                return await pool.acquire(timeout=max(0.0, ends_at - monotonic()))
        except StatementFailed as error:
            raise DatabaseUnavailable(str(error)) from error  # no row is to blame yet
        except ConnectionsUsedUpError:
            connector = getattr(pool, "_connect", None)
            if not pool.get_size() and isinstance(connector, Connector):
                await connector.opened(max(0.0, ends_at - monotonic()))
            if not pool.get_size() or monotonic() > ends_at:
                raise
        await asyncio.sleep(TURN_SECONDS)


def _watching(pool: Pool, taken: "Pooled") -> "asyncio.Task[None] | None":
    """Where there are several hosts, a statement that takes long has its own looked at."""
    connector = getattr(pool, "_connect", None)
    if not isinstance(connector, Connector) or not connector.has_choice:
        return None
    host = connector.host_of(getattr(taken, "_con", None))
    return asyncio.create_task(_watch(connector, host)) if host else None


async def _watch(connector: "Connector", host: Host) -> None:
    pause = SILENT_SECONDS
    while True:
        await asyncio.sleep(pause)
        # Slow, or waiting for a lock: another host would not be quicker.
        answers = await connector.look_at(host)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS) if answers else SILENT_SECONDS


async def _forsake(pool: Pool) -> None:
    """Close idle connections without a word to the server, the others when they are given back."""
    await pool.expire_connections()
    # Left to the pool, each would be closed politely, which a dead server keeps waiting.
    for holder in getattr(pool, "_holders", ()):
        if holder.is_idle():
            holder.terminate()


async def _nothing(_connection: object) -> None:
    pass


async def check_migrated(pool: Pool) -> None:
    """Raises `SchemaNotMigratedError`, or `DatabaseUnavailable`."""
    async with connection(pool) as asked:
        try:
            revision = await asked.fetchval(*REVISION())
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            revision = None
    if revision is None or revision < SCHEMA_REVISION:
        raise SchemaNotMigratedError(
            f"schema refresher: expected revision {SCHEMA_REVISION} or newer, not "
            f"{revision or 'an empty database'}; run refresher migrate"
        )
