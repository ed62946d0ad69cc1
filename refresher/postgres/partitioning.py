"""Turning refresher.videos into a table that is partitioned by the hash of open_id.

Whatever the revisions made of the table is read from the catalog and made again: nothing here
repeats a column, a key or a storage parameter, so a later revision needs no change here.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import asyncpg
from asyncpg import Record

from refresher.postgres.database import (
    SCAN_SECONDS,
    Connection,
    Connector,
    Pool,
    available,
    connection,
    first_line,
)
from refresher.postgres.migrate import SQL_LOCK

#: Nobody queues behind us for longer; an autovacuum gives way to whoever has waited for a second.
LOCK_SECONDS: Final = 1.5
LOCK_TRIES: Final = 10
#: For the statements under way to end, while no new ones begin.
DRAIN_POLLS: Final = 25
DRAIN_POLL_SECONDS: Final = 0.02

SQL_PARTITIONS: Final = """
SELECT CASE WHEN relkind = 'p' THEN (
    SELECT count(*) FROM pg_inherits WHERE inhparent = pg_class.oid
) END
FROM pg_class
WHERE oid = 'refresher.videos'::regclass
"""

SQL_LOCK_TIMEOUT: Final = f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"
# accounts, too: a foreign key to it is dropped and made, and all that the daemon does begins there.
SQL_LOCK_ACCOUNTS: Final = "LOCK TABLE refresher.accounts IN ACCESS EXCLUSIVE MODE"
SQL_LOCK_VIDEOS: Final = "LOCK TABLE refresher.videos IN ACCESS EXCLUSIVE MODE"

# What a partitioned table cannot have, or we would lose.
SQL_OBSTACLES: Final = """
SELECT string_agg(what, ', ')
FROM pg_class AS c CROSS JOIN LATERAL (
    VALUES ('row-level security', c.relrowsecurity OR EXISTS (
                SELECT FROM pg_policy WHERE polrelid = c.oid)),
           ('a rule', c.relhasrules),
           ('a publication of its own', EXISTS (
                SELECT FROM pg_publication_rel WHERE prrelid = c.oid)),
           ('a replica identity', c.relreplident <> 'd'),
           ('inheritance', c.relhassubclass OR EXISTS (
                SELECT FROM pg_inherits WHERE inhrelid = c.oid)),
           ('a tablespace', c.reltablespace <> 0),
           ('no write-ahead log', c.relpersistence <> 'p'),
           ('a unique index without open_id', EXISTS (
                SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = c.oid
                WHERE i.indrelid = c.oid AND i.indisunique AND a.attname = 'open_id'
                  AND a.attnum <> ALL (i.indkey))),
           ('a trigger for each row with a transition table', EXISTS (
                SELECT FROM pg_trigger
                WHERE tgrelid = c.oid AND tgtype & 1 = 1
                  AND coalesce(tgoldtable, tgnewtable) IS NOT NULL))
) AS obstacle (what, stands)
WHERE c.oid = 'refresher.videos'::regclass AND stands
"""

# The statements that make again what LIKE leaves out. Read while the table has its own name, they
# speak of refresher.videos; keys come before what refers to them, rights last.
SQL_DEFINITIONS: Final = """
SELECT statement
FROM (
    SELECT CASE contype WHEN 'f' THEN 2 ELSE 1 END AS place,
           format('ALTER TABLE refresher.videos ADD CONSTRAINT %I %s',
                  conname, pg_get_constraintdef(oid)) AS statement
    FROM pg_constraint
    WHERE conrelid = 'refresher.videos'::regclass AND contype IN ('p', 'u', 'x', 'f')
    UNION ALL
    SELECT 1, pg_get_indexdef(indexrelid)
    FROM pg_index
    WHERE indrelid = 'refresher.videos'::regclass
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
    UNION ALL
    SELECT 3, pg_get_triggerdef(oid)
    FROM pg_trigger
    WHERE tgrelid = 'refresher.videos'::regclass AND NOT tgisinternal
    UNION ALL
    SELECT 4, format('ALTER TABLE refresher.videos %s TRIGGER %I',
                     CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
                                    ELSE 'ENABLE REPLICA' END, tgname)
    FROM pg_trigger
    WHERE tgrelid = 'refresher.videos'::regclass AND NOT tgisinternal AND tgenabled <> 'O'
    UNION ALL
    SELECT 4, format('COMMENT ON TABLE refresher.videos IS %L', description)
    FROM pg_description
    WHERE objoid = 'refresher.videos'::regclass
      AND classoid = 'pg_class'::regclass
      AND objsubid = 0
    UNION ALL
    SELECT 5, format('GRANT %s ON refresher.videos TO %s%s', privilege_type,
                     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
    FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner)))
    WHERE pg_class.oid = 'refresher.videos'::regclass AND grantee <> relowner
    UNION ALL
    SELECT 5, format('GRANT %s (%I) ON refresher.videos TO %s%s', privilege_type, attname,
                     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
    FROM pg_attribute, aclexplode(attacl)
    WHERE attrelid = 'refresher.videos'::regclass
) AS definitions
ORDER BY place, statement
"""

# Storage parameters, the TOAST table's too: they belong to the partitions, which hold the rows.
SQL_STORAGE: Final = """
SELECT ' WITH (' || string_agg(parameter, ', ') || ')'
FROM pg_class AS c LEFT JOIN pg_class AS toast ON toast.oid = c.reltoastrelid
CROSS JOIN LATERAL (
    SELECT unnest(c.reloptions)
    UNION ALL
    SELECT 'toast.' || unnest(toast.reloptions)
) AS parameters (parameter)
WHERE c.oid = 'refresher.videos'::regclass
"""
SQL_OWNER: Final = """
SELECT relowner::regrole::text FROM pg_class WHERE oid = 'refresher.videos'::regclass
"""

# In a schema of its own for a moment, so that every name is free for what takes its place.
SQL_SET_ASIDE: Final = """
CREATE SCHEMA refresher_set_aside;
ALTER TABLE refresher.videos SET SCHEMA refresher_set_aside
"""
SQL_DROP: Final = "DROP TABLE refresher_set_aside.videos"
SQL_DROP_SCHEMA: Final = "DROP SCHEMA refresher_set_aside"

SQL_CREATE: Final = """
CREATE TABLE refresher.videos (
    LIKE refresher_set_aside.videos INCLUDING ALL EXCLUDING INDEXES
) PARTITION BY HASH (open_id)
"""
SQL_CREATE_PARTITION: Final = """
CREATE TABLE refresher.videos_{number} PARTITION OF refresher.videos
FOR VALUES WITH (MODULUS {partitions}, REMAINDER {number}){storage}
"""
# What the schema's default privileges give new tables is not what this one had.
SQL_UNASKED_RIGHTS: Final = """
SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', c.oid::regclass,
                       CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
FROM pg_partition_tree('refresher.videos') AS tree JOIN pg_class AS c ON c.oid = tree.relid
CROSS JOIN LATERAL aclexplode(c.relacl)
WHERE grantee <> c.relowner
"""
SQL_COPY: Final = "INSERT INTO refresher.videos SELECT * FROM refresher_set_aside.videos"
# Autovacuum analyzes the partitions, never the table they make up.
SQL_ANALYZE: Final = "ANALYZE refresher.videos"


class PartitioningRefusedError(Exception):
    """The table cannot be partitioned as asked; nothing was changed."""


async def partition_videos(database_url: str, partitions: int) -> int | None:
    """Partition refresher.videos, in one transaction; how many rows it holds.

    None where it is partitioned so already. Accounts and videos are locked meanwhile, for readers,
    too. Safe from several places at once. Raises `PartitioningRefusedError`, `DatabaseUnavailable`.
    """
    connector = Connector(database_url, application_name="refresher-migrate")
    with available():
        connection = await connector.plain(command_timeout=SCAN_SECONDS)
        try:
            async with connection.transaction():
                return await _partition(connection, partitions)
        finally:
            await connection.close()


async def count_partitions(pool: Pool) -> int | None:
    """Of refresher.videos; None where it is not partitioned. Raises `DatabaseUnavailable`."""
    async with connection(pool) as taken:
        found: int | None = await taken.fetchval(SQL_PARTITIONS)
    return found


async def _partition(connection: Connection, partitions: int) -> int | None:
    await connection.execute(SQL_LOCK)
    found = await connection.fetchval(SQL_PARTITIONS)
    if found == partitions:
        return None
    if found is not None:
        raise PartitioningRefusedError(
            f"refresher.videos has {found} partitions: expected these or none, not {partitions}"
        )
    await _lock_tables(connection)
    if obstacles := await connection.fetchval(SQL_OBSTACLES):
        raise PartitioningRefusedError(
            f"refresher.videos has {obstacles}, which partitions would not keep: undo it first"
        )
    definitions = _texts(await connection.fetch(SQL_DEFINITIONS))
    await _replace(connection, partitions)
    copied = await connection.execute(SQL_COPY)
    for statement in (*definitions, SQL_DROP, SQL_DROP_SCHEMA, SQL_ANALYZE):
        await connection.execute(statement)
    return int(copied.rpartition(" ")[2])


async def _lock_tables(connection: Connection) -> None:
    """Both tables, without ever waiting for one while holding the other.

    Applications lock them in either order: one that waits for us must not be the one to fail, as
    the server could decide if we waited for it, too.
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
    """Wait for the lock that it stands in the way of, and do not keep it."""
    waiting = connection.transaction()
    await waiting.start()
    try:
        await connection.execute(SQL_LOCK_TIMEOUT)
        with suppress(asyncpg.LockNotAvailableError):
            await connection.execute(SQL_LOCK_VIDEOS)
    finally:
        await waiting.rollback()


async def _replace(connection: Connection, partitions: int) -> None:
    """Set the table aside and put an empty one with its partitions in its place."""
    storage = await connection.fetchval(SQL_STORAGE) or ""
    owner = await connection.fetchval(SQL_OWNER)
    await connection.execute(SQL_SET_ASIDE)
    await _rehearse_drop(connection)
    await connection.execute(SQL_CREATE)
    await connection.execute(f"ALTER TABLE refresher.videos OWNER TO {owner}")
    for number in range(partitions):
        await connection.execute(
            SQL_CREATE_PARTITION.format(number=number, partitions=partitions, storage=storage)
        )
        await connection.execute(f"ALTER TABLE refresher.videos_{number} OWNER TO {owner}")
    for statement in _texts(await connection.fetch(SQL_UNASKED_RIGHTS)):
        await connection.execute(statement)


async def _rehearse_drop(connection: Connection) -> None:
    """Whatever depends on the table shows now, not when all is copied."""
    rehearsal = connection.transaction()
    await rehearsal.start()
    try:
        await connection.execute(SQL_DROP)
    except asyncpg.DependentObjectsStillExistError as error:
        dependent = first_line(Exception(error.detail)).replace("refresher_set_aside", "refresher")
        raise PartitioningRefusedError(f"{dependent}: drop it, and make it again after") from None
    finally:
        await rehearsal.rollback()


def _texts(rows: Sequence[Record]) -> Sequence[str]:
    return [row[0] for row in rows]
