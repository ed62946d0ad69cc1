"""What keeps every refresh HOT, fillfactor or reserve: python -m benchmarks.hot_updates.

The same 50,000 videos of 500 accounts, inserted without a cover and refreshed three times, whole
accounts at once, in tables that differ only in these two.
"""

import asyncio

import asyncpg

from refresher.demo import temporary_postgres

ACCOUNTS, VIDEOS_EACH, ROUNDS = 500, 100, 3
VARIANTS = [(100, False), (45, False), (10, False), (60, True), (50, True), (45, True)]

CREATE = """
DROP TABLE IF EXISTS videos;
CREATE TABLE videos (
    open_id text, video_id text, cover_image_url text, cover_expires_at timestamptz,
    refreshed_at timestamptz, missing_since timestamptz, gone_at timestamptz,
    due_at timestamptz NOT NULL DEFAULT now(), misses smallint NOT NULL DEFAULT 0,
    reserve text DEFAULT {reserve}, PRIMARY KEY (open_id, video_id)
) WITH (fillfactor = {fillfactor}, autovacuum_enabled = off)
"""
INSERT = """
INSERT INTO videos (open_id, video_id)
SELECT '-000' || lpad(a::text, 32, '0'), (7000000000000000000 + a * 1000 + v)::text
FROM generate_series(1, $1::integer) AS a, generate_series(1, $2::integer) AS v
"""
REFRESH = """
UPDATE videos
SET cover_image_url = repeat('u', 350), cover_expires_at = now(), refreshed_at = now(),
    due_at = now(), misses = 0, reserve = NULL
WHERE open_id IN (SELECT '-000' || lpad(a::text, 32, '0') FROM generate_series($1, $1 + 9) AS a)
"""
UPDATES = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'videos'"


async def measure(connection, fillfactor, reserve):
    filler = "repeat('.', 340)" if reserve else "NULL"
    await connection.execute(CREATE.format(fillfactor=fillfactor, reserve=filler))
    await connection.execute(INSERT, ACCOUNTS, VIDEOS_EACH)
    shares = []
    before = (0, 0)
    begun = await connection.fetchval("SELECT pg_current_wal_lsn()")
    for _ in range(ROUNDS):
        for account in range(1, ACCOUNTS, 10):
            await connection.execute(REFRESH, account)
        await connection.execute("SELECT pg_stat_force_next_flush()")
        after = tuple(await connection.fetchrow(UPDATES))
        shares.append((after[1] - before[1]) / (after[0] - before[0]))
        before = after
    wal = await connection.fetchval("SELECT pg_current_wal_lsn() - $1::pg_lsn", begun)
    size = await connection.fetchval("SELECT pg_table_size('videos')")
    videos = ACCOUNTS * VIDEOS_EACH
    return shares, float(wal) / videos / ROUNDS, size / videos


async def main():
    with temporary_postgres() as url:
        connection = await asyncpg.connect(url)
        print("fillfactor  reserve  HOT share by round         WAL bytes/update  table bytes/video")
        for fillfactor, reserve in VARIANTS:
            shares, wal, size = await measure(connection, fillfactor, reserve)
            by_round = "  ".join(f"{share:7.1%}" for share in shares)
            print(f"{fillfactor:10}  {reserve!s:7}  {by_round}  {wal:18,.0f}  {size:17,.0f}")
        await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
