"""Turning refresher.videos into a table that is partitioned by the hash of open_id.

Whatever the revisions made of the table is read from the catalog and made again: nothing here
repeats a column, a key or a storage parameter, so a later revision needs no change here.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg
from asyncpg import Record

from refresher.postgres.database import SCAN_SECONDS, Connection, Connector, available, first_line
from refresher.postgres.migrate import SQL_LOCK

#: Longer than the server looks for deadlocks after (1 s, which also makes an autovacuum give way)
#: and shorter than twice that: so whoever stands in our way meanwhile is never the one to fail.
LOCK_SECONDS: Final = 1.5
LOCK_TRIES: Final = 20

SQL_PARTITIONS: Final = """
SELECT CASE WHEN relkind = 'p' THEN (
    SELECT count(*) FROM pg_inherits WHERE inhparent = pg_class.oid
) END
FROM pg_class
WHERE oid = 'refresher.videos'::regclass
"""

SQL_LOCK_TIMEOUT: Final = f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"
# In the order of the daemon's own statements. accounts, too: a foreign key is dropped and made.
SQL_LOCK_TABLES: Final = "LOCK TABLE refresher.accounts, refresher.videos IN ACCESS EXCLUSIVE MODE"

# What we would lose.
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
           ('being unlogged', c.relpersistence <> 'p')
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
        raise PartitioningRefusedError(f"refresher.videos: {obstacles} would be lost: undo it")
    definitions = _texts(await connection.fetch(SQL_DEFINITIONS))
    await _replace(connection, partitions)
    copied = await connection.execute(SQL_COPY)
    for statement in (*definitions, SQL_DROP, SQL_DROP_SCHEMA, SQL_ANALYZE):
        await connection.execute(statement)
    return int(copied.rpartition(" ")[2])


async def _lock_tables(connection: Connection) -> None:
    """Try again and again for a short time each: nobody queues behind us for long in vain."""
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            async with connection.transaction():
                await connection.execute(SQL_LOCK_TIMEOUT)
                await connection.execute(SQL_LOCK_TABLES)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if not tries_left:
                raise
        else:
            return


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
