"""What the triggers for an application's writes cost: python -m benchmarks.write_back_triggers.

The same rows in two databases of one server, one of them without these triggers, written back in
turns by the daemon's own statement; the figures are the server's CPU time.
"""

import argparse
import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

import asyncpg

from benchmarks.arguments import parser_of, whole
from benchmarks.partitions import URL, database
from refresher.demo import temporary_postgres
from refresher.domain.model import ChunkWrite, OpenId, VideoId, Write
from refresher.postgres.database import Pool, connected
from refresher.postgres.write_back import write_back

CHUNKS = 50
LEAD = timedelta(hours=1)

FILL = """
INSERT INTO refresher.accounts (open_id, lease_epoch)
SELECT '-000' || md5(n::text), 0 FROM generate_series(1, $1::integer) AS n
"""
FILL_VIDEOS = """
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, reserve)
SELECT open_id, (7000000000000000000 + v)::text, $1, now(), NULL
FROM refresher.accounts, generate_series(1, 100) AS v
"""
DROP = """
DROP TRIGGER videos_rewritten ON refresher.videos;
DROP TRIGGER videos_rewritten_elsewhere ON refresher.videos;
DROP TRIGGER videos_moving ON refresher.videos;
DROP TRIGGER videos_moved ON refresher.videos;
DROP TRIGGER videos_moved_on ON refresher.videos;
DROP TRIGGER videos_replicated ON refresher.videos;
"""
PLACES = "SELECT open_id, video_id, ctid::text FROM refresher.videos ORDER BY open_id, video_id"
HOT = """
SELECT n_tup_hot_upd::float8 / nullif(n_tup_upd, 0)
FROM pg_stat_user_tables WHERE relid = 'refresher.videos'::regclass
"""


@dataclass
class Variant:
    """A database, and how long each round took there."""

    name: str
    pool: Pool
    cpu: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    parser = parser_of("python -m benchmarks.write_back_triggers", __doc__)
    add = parser.add_argument
    add("--accounts", type=whole(), default=300, help="of 100 videos (default %(default)s)")
    add("--rounds", type=whole(), default=30, help="in turns (default %(default)s)")
    asyncio.run(compare(parser.parse_args()))


async def compare(options: argparse.Namespace) -> None:
    with temporary_postgres() as server:
        async with AsyncExitStack() as stack:
            variants = []
            for name, statement in (("with", "SELECT"), ("without", DROP)):
                url = await database(server, f"triggers_{name}")
                pool = await stack.enter_async_context(connected(url, application_name="bench"))
                await pool.execute(statement)
                await pool.execute(FILL, options.accounts)
                await pool.execute(FILL_VIDEOS, URL)
                await pool.execute("VACUUM (FREEZE, ANALYZE) refresher.videos")
                variants.append(Variant(name, pool))
            for number in range(options.rounds + 1):
                for variant in variants if number % 2 else reversed(variants):
                    await write_all(variant, number)
            for variant in variants:
                await show(variant, 100 * options.accounts)
            ratios = [a / b for a, b in zip(*(v.cpu[1:] for v in variants), strict=True)]
            totals = [sum(variant.cpu[1:]) for variant in variants]
            print(
                f"with / without: {totals[0] / totals[1]:.3f} in all, median {median(ratios):.3f}"
            )


async def write_all(variant: Variant, number: int) -> None:
    """A new cover for every video, a thousand a statement."""
    chunks = await chunks_of(variant.pool, datetime.now(UTC) + timedelta(hours=1 + number))
    async with variant.pool.acquire() as connection:
        process = await connection.fetchval("SELECT pg_backend_pid()")
    used, begun = cpu_seconds(process), perf_counter()
    for first in range(0, len(chunks), CHUNKS):
        batch = chunks[first : first + CHUNKS]
        assert await write_back(variant.pool, batch) == [20] * len(batch)
    variant.seconds.append(perf_counter() - begun)
    variant.cpu.append(cpu_seconds(process) - used)


def cpu_seconds(process: int) -> float:
    """Of a process so far, to the nanosecond: Linux only."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


async def chunks_of(pool: Pool, expires_at: datetime) -> list[ChunkWrite]:
    rows = await pool.fetch(PLACES)
    chunks = []
    for first in range(0, len(rows), 20):
        part = rows[first : first + 20]
        ids = [VideoId(row["video_id"]) for row in part]
        write = Write(ids, expires_at - LEAD, expires_at, [URL] * len(ids))
        ctids = dict(zip(ids, (row["ctid"] for row in part), strict=True))
        chunks.append(ChunkWrite(OpenId(part[0]["open_id"]), 0, [write], ctids))
    return chunks


async def show(variant: Variant, rows: int) -> None:
    connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    async with variant.pool.acquire() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        hot = await connection.fetchval(HOT)
    print(
        f"{variant.name:8} {1e6 * sum(variant.cpu[1:]) / rows / len(variant.cpu[1:]):6.2f} µs of"
        f" the server's CPU a row, {rows / median(variant.seconds[1:]):9,.0f} rows/s, HOT {hot:.2%}"
    )


if __name__ == "__main__":
    main()
