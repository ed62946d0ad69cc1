"""What partitioning videos costs and gains: python -m benchmarks.partitions.

The same fleet in databases of one server that differ only in the partitions. The rounds go from one
to the next, so that whatever else the machine does meets all of them; the figures are medians.

Takes about five minutes and 6 GB of disk, which it gives back.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median
from time import perf_counter
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks.arguments import parser_of, whole
from refresher.demo import temporary_postgres
from refresher.domain.model import CHUNK_SIZE, ChunkWrite, Claim, Release, Write
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.database import SCAN_SECONDS, Pool, connected
from refresher.postgres.migrate import migrate
from refresher.postgres.partitioning import partition_videos
from refresher.postgres.write_back import write_back

T = TypeVar("T")
LEAD = timedelta(hours=1)
#: As long as those that TikTok gives.
URL = f"https://p16-sign.example/{'c' * 320}"
CHUNKS = 128
PARTITIONING = "migrate --video-partitions"

FILL_ACCOUNTS = """
INSERT INTO refresher.accounts (open_id, access_token, wake_at, videos)
SELECT '-000' || md5(n::text), 'act.x', now() - interval '1 hour', $2
FROM generate_series(1, $1::integer) AS n
"""
# Scattered as badly as possible: no two videos of an account on the same page.
FILL_VIDEOS = """
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, due_at, reserve)
SELECT '-000' || md5(n::text), (7000000000000000000 + m)::text, $3, now() + interval '1 hour',
       now(), NULL
FROM generate_series(1, $2::integer) AS m, generate_series(1, $1::integer) AS n
"""
WAKES_NOBODY = "ALTER TABLE refresher.videos DISABLE TRIGGER videos_replicated"
WAKES_AGAIN = "ALTER TABLE refresher.videos ENABLE REPLICA TRIGGER videos_replicated"
ADD_VIDEO = """
INSERT INTO refresher.videos (open_id, video_id)
SELECT open_id, $1 FROM refresher.accounts ORDER BY open_id LIMIT 1
"""
LEAVES = """
SELECT relid::regclass::text FROM pg_partition_tree('refresher.videos') WHERE isleaf
"""


@dataclass
class Variant:
    """A database, and how long each thing took there."""

    partitions: int
    url: str
    pool: Pool
    seconds: dict[str, list[float]] = field(default_factory=dict)

    async def timed(self, what: str, doing: Awaitable[T]) -> T:
        begun = perf_counter()
        done = await doing
        self.seconds.setdefault(what, []).append(perf_counter() - begun)
        return done


def main() -> None:
    parser = parser_of("python -m benchmarks.partitions", __doc__)
    add = parser.add_argument
    add("--accounts", type=whole(), default=10_000, help="(default %(default)s)")
    add("--videos-each", type=whole(), default=100, help="of each account (default %(default)s)")
    add(
        "--partitions",
        type=whole(2, 1024),
        nargs="+",
        default=[16, 64, 256],
        help="beside a table that has none (default %(default)s)",
    )
    add("--rounds", type=whole(), default=30, help="that are timed (default %(default)s)")
    asyncio.run(compare(parser.parse_args()))


async def compare(options: argparse.Namespace) -> None:
    with temporary_postgres() as server:
        async with AsyncExitStack() as stack:
            variants = []
            for partitions in (0, *dict.fromkeys(options.partitions)):
                url = await database(server, f"partitions_{partitions}")
                pool = await stack.enter_async_context(connected(url, application_name="bench"))
                variants.append(Variant(partitions, url, pool))
                await fill(variants[-1], options)
            for number in range(options.rounds):
                for variant in variants:
                    await work(variant, number)
            for variant in variants:
                await vacuum(variant)
            show(variants, options.accounts * options.videos_each)


async def database(server: str, name: str) -> str:
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    await migrate(url)
    return url


async def fill(variant: Variant, options: argparse.Namespace) -> None:
    connection = await asyncpg.connect(variant.url, command_timeout=SCAN_SECONDS)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(WAKES_NOBODY)
        await connection.execute(FILL_ACCOUNTS, options.accounts, options.videos_each)
        await connection.execute(FILL_VIDEOS, options.accounts, options.videos_each, URL)
        await connection.execute(WAKES_AGAIN)
        if variant.partitions:
            partitioning = partition_videos(variant.url, variant.partitions)
            await variant.timed(PARTITIONING, partitioning)
        await connection.execute("VACUUM (FREEZE, ANALYZE)")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def work(variant: Variant, number: int) -> None:
    """What a replica does: claim, write a thousand results at once, give back."""
    claims = Accounts(
        variant.pool,
        replica="a",
        pace=Pace(0, 0, lease_seconds=60),
    )
    claimed = await variant.timed("claim", claims.claim(CHUNKS))
    chunks = [chunk for claim in claimed for chunk in refreshed(claim)]
    for first in range(0, len(chunks) - 49, 50):
        writing = write_back(variant.pool, chunks[first : first + 50])
        await variant.timed("write-back of 1,000", writing)
    releases = [Release(claim.open_id, claim.lease_epoch, requests=5) for claim in claimed]
    await variant.timed("release", claims.release(releases))
    adding = variant.pool.execute(ADD_VIDEO, str(number))
    await variant.timed("an application's INSERT", adding)


def refreshed(claim: Claim) -> Iterator[ChunkWrite]:
    expires_at = claim.time.now + timedelta(hours=6)
    for first in range(0, len(claim.videos), CHUNK_SIZE):
        ids = [video.video_id for video in claim.videos[first : first + CHUNK_SIZE]]
        write = Write(ids, expires_at - LEAD, expires_at, [URL] * len(ids))
        yield ChunkWrite(claim.open_id, claim.lease_epoch, [write], claim.ctids)


async def vacuum(variant: Variant) -> None:
    """Every row rewritten once, then each table that holds rows vacuumed, one after another."""
    async with variant.pool.acquire() as connection:
        rewrite = "UPDATE refresher.videos SET misses = 1"
        await connection.execute(rewrite, timeout=SCAN_SECONDS)
        leaves = [row[0] for row in await connection.fetch(LEAVES)] or ["refresher.videos"]
        for leaf in leaves:
            vacuuming = connection.execute(f"VACUUM {leaf}", timeout=SCAN_SECONDS)
            await variant.timed("vacuum", vacuuming)
    turns = variant.seconds.pop("vacuum")
    variant.seconds["vacuum of all"] = [sum(turns)]
    variant.seconds["of the largest table"] = [max(turns)]


def show(variants: Sequence[Variant], rows: int) -> None:
    print("milliseconds, and as a ratio of those without partitions")
    print(f"{'partitions':26}" + "".join(f"{variant.partitions:>20,}" for variant in variants))
    first = variants[0].seconds
    for what in first:
        cells = (median(variant.seconds[what]) for variant in variants)
        told = (f"{1000 * cell:,.1f} ({cell / median(first[what]):.2f})" for cell in cells)
        print(f"{what:26}" + "".join(f"{cell:>20}" for cell in told))
    for variant in variants[1:]:
        (seconds,) = variant.seconds[PARTITIONING]
        print(f"{PARTITIONING} {variant.partitions}: {rows / seconds:,.0f} rows/s")


if __name__ == "__main__":
    main()
