"""Turns refresher.videos into a table that is partitioned by the hash of open_id.

Columns, keys and storage parameters are read from the catalog and made again. Nothing here repeats
them, so a later revision needs no change here.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import asyncpg
from asyncpg import Record

from refresher.domain.schema_name import USUAL_SCHEMA
from refresher.postgres.connector import Connector
from refresher.postgres.database import SCAN_SECONDS, Pool, acquired
from refresher.postgres.failures import available, first_line
from refresher.postgres.migrate import SQL_LOCK
from refresher.postgres.naming import Connection, schema_of
from refresher.postgres.statements import statement

#: Nobody waits behind us for longer. An autovacuum gives way after a second.
LOCK_SECONDS: Final = 1.5
LOCK_TRIES: Final = 10
#: We hold back new statements and wait so often for those under way to end.
DRAIN_POLLS: Final = 25
DRAIN_POLL_SECONDS: Final = 0.02

PARTITIONS: Final = statement("schema/partitions")
OBSTACLES: Final = statement("schema/obstacles")
DEFINITIONS: Final = statement("schema/definitions")
STORAGE: Final = statement("schema/storage")
OWNER: Final = statement("schema/owner")
CREATE_PARTITIONED: Final = statement("schema/create_partitioned")
UNASKED_RIGHTS: Final = statement("schema/unasked_rights")

# Not in files: commands of one line, and commands with names and numbers that cannot be parameters.
SQL_LOCK_TIMEOUT: Final = f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"
# accounts, too: a foreign key to it is dropped and made again, and all work of the daemon begins
# there.
SQL_LOCK_ACCOUNTS: Final = "LOCK TABLE refresher.accounts IN ACCESS EXCLUSIVE MODE"
SQL_LOCK_VIDEOS: Final = "LOCK TABLE refresher.videos IN ACCESS EXCLUSIVE MODE"

# In a schema of its own for a moment, so that its names are free for the new table.
SQL_SET_ASIDE: Final = """
CREATE SCHEMA refresher_set_aside;
ALTER TABLE refresher.videos SET SCHEMA refresher_set_aside
"""
SQL_DROP: Final = "DROP TABLE refresher_set_aside.videos"
SQL_DROP_SCHEMA: Final = "DROP SCHEMA refresher_set_aside"

SQL_CREATE_PARTITION: Final = """
CREATE TABLE refresher.videos_{number} PARTITION OF refresher.videos
FOR VALUES WITH (MODULUS {partitions}, REMAINDER {number}){storage}
"""
SQL_PAGES: Final = """
SELECT pg_relation_size('refresher_set_aside.videos') / current_setting('block_size')::bigint
"""
# In parts, to tell how far it is. A range of ctid reads only its own pages.
SQL_COPY: Final = """
INSERT INTO refresher.videos
SELECT * FROM refresher_set_aside.videos WHERE ctid >= $1 AND ctid < $2
"""
#: In so many parts the rows are copied.
PARTS: Final = 200
# Autovacuum analyzes the partitions, but never the table as a whole.
SQL_ANALYZE: Final = "ANALYZE refresher.videos"

OnProgress = Callable[[int, int], None]


class PartitioningRefusedError(Exception):
    """The table cannot be partitioned as asked; nothing was changed."""


async def partition_videos(
    database_url: str,
    partitions: int,
    on_progress: OnProgress = lambda _done, _of: None,
    *,
    schema: str = USUAL_SCHEMA,
) -> int | None:
    """Partition refresher.videos, in one transaction; returns its number of rows.

    None if it has these partitions already. `on_progress` hears how many pages of the table are
    copied, and how many it has. Accounts and videos are locked meanwhile, also for readers. Safe
    from several places at once. Raises `PartitioningRefusedError`, `DatabaseUnavailable`.
    """
    connector = Connector(database_url, schema=schema, application_name="refresher-migrate")
    with available():
        connection = await connector.plain(command_timeout=SCAN_SECONDS)
        try:
            async with connection.transaction():
                return await _partition(connection, partitions, on_progress)
        finally:
            await connection.close()


async def count_partitions(pool: Pool) -> int | None:
    """Of refresher.videos; None if it is not partitioned. Raises `DatabaseUnavailable`."""
    async with acquired(pool) as connection:
        partitions: int | None = await connection.fetchval(*PARTITIONS())
    return partitions


async def _partition(
    connection: Connection, partitions: int, on_progress: OnProgress
) -> int | None:
    await connection.execute(SQL_LOCK)
    present = await connection.fetchval(*PARTITIONS())
    if present == partitions:
        return None
    if present is not None:
        raise PartitioningRefusedError(
            f"{schema_of(connection)}.videos has {present} partitions: expected these or none, not"
            f" {partitions}"
        )
    await _lock_tables(connection)
    if obstacles := await connection.fetchval(*OBSTACLES()):
        raise PartitioningRefusedError(
            f"{schema_of(connection)}.videos has {obstacles}, which partitions would not keep: undo"
            " it first"
        )
    definitions = _texts(await connection.fetch(*DEFINITIONS()))
    await _replace(connection, partitions)
    copied = await _copy(connection, on_progress)
    for command in (*definitions, SQL_DROP, SQL_DROP_SCHEMA, SQL_ANALYZE):
        await connection.execute(command)
    return copied


async def _copy(connection: Connection, on_progress: OnProgress) -> int:
    pages = await connection.fetchval(SQL_PAGES)
    step = max(1, -(-pages // PARTS))
    copied = 0
    for page in range(0, pages, step):
        told = await connection.execute(SQL_COPY, (page, 0), (page + step, 0))
        copied += int(told.rpartition(" ")[2])
        on_progress(min(page + step, pages), pages)
    return copied


async def _lock_tables(connection: Connection) -> None:
    """Lock both tables, but never wait for one while we hold the other.

    Applications lock them in any order. If we waited for each other, the server might end the
    application's transaction instead of ours.
    """
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            async with connection.transaction():
                await connection.execute(SQL_LOCK_TIMEOUT)
                await connection.execute(SQL_LOCK_ACCOUNTS)
                await _lock_drained(connection)
        except asyncpg.LockNotAvailableError:
            if not tries_left:
                raise
            await _make_autovacuum_yield(connection)
        else:
            return


async def _lock_drained(connection: Connection) -> None:
    for polls_left in reversed(range(DRAIN_POLLS)):
        try:
            async with connection.transaction():
                await connection.execute(f"{SQL_LOCK_VIDEOS} NOWAIT")
        except asyncpg.LockNotAvailableError:
            if not polls_left:
                raise
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        else:
            return


async def _make_autovacuum_yield(connection: Connection) -> None:
    """Wait for the lock, so that an autovacuum gives way, and do not keep it."""
    waiting = connection.transaction()
    await waiting.start()
    try:
        await connection.execute(SQL_LOCK_TIMEOUT)
        with suppress(asyncpg.LockNotAvailableError):
            await connection.execute(SQL_LOCK_VIDEOS)
    finally:
        await waiting.rollback()


async def _replace(connection: Connection, partitions: int) -> None:
    """Set the table aside, and make an empty one with partitions in its place."""
    storage = await connection.fetchval(*STORAGE()) or ""
    owner = await connection.fetchval(*OWNER())
    await connection.execute(SQL_SET_ASIDE)
    await _rehearse_drop(connection)
    await connection.execute(*CREATE_PARTITIONED())
    await connection.execute(f"ALTER TABLE refresher.videos OWNER TO {owner}")
    for number in range(partitions):
        await connection.execute(
            SQL_CREATE_PARTITION.format(number=number, partitions=partitions, storage=storage)
        )
        await connection.execute(f"ALTER TABLE refresher.videos_{number} OWNER TO {owner}")
    for revocation in _texts(await connection.fetch(*UNASKED_RIGHTS())):
        await connection.execute(revocation)


async def _rehearse_drop(connection: Connection) -> None:
    """Fail now if anything depends on the table, and not when all rows are copied."""
    rehearsal = connection.transaction()
    await rehearsal.start()
    try:
        await connection.execute(SQL_DROP)
    except asyncpg.DependentObjectsStillExistError as error:
        dependent = first_line(Exception(error.detail)).replace("_set_aside", "")
        raise PartitioningRefusedError(f"{dependent}: drop it, and make it again after") from None
    finally:
        await rehearsal.rollback()


def _texts(rows: Sequence[Record]) -> Sequence[str]:
    return [row[0] for row in rows]
