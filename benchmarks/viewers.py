"""What many viewers of the operations endpoint cost: python -m benchmarks.viewers.

One daemon at work, all videos due, no rate limit. In turn nobody looks, and somebody asks for the
status page and the metrics so many times a second. Each turn is compared with the one before it, so
that what changes with time meets both alike. Then the same with nothing due, for the statements.

Takes about five minutes and 3 GB of disk, which it gives back.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from socket import create_server
from statistics import median
from typing import Any, Final

import aiohttp
import uvloop

from benchmarks.arguments import parser_of, real, whole
from benchmarks.live import Daemon, daemon, postgres, print_table, print_verdict, stand_in
from benchmarks.world import Server, make_fleet

DATABASE: Final = "viewers"
VIDEOS_EACH: Final = 100
CHUNK: Final = 20
WARM_UP_SECONDS: Final = 6.0
SPARE: Final = 1.5
PATHS: Final = ("/", "/metrics")
#: How often the sessions of the server tell what they have done.
TOLD_SECONDS: Final = 1.5
MOST_LOST: Final = 0.02
MOST_STATEMENTS: Final = 2.0

#: Each statement of a daemon that reads is a transaction.
SQL_STATEMENTS: Final = """
SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()
"""

SQL_SLEEP: Final = """
UPDATE refresher.accounts
SET wake_at = 'infinity', earliest_due_at = 'infinity', token_due_at = 'infinity'
"""


def main() -> None:
    uvloop.run(measure(read_options()))


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.viewers", __doc__)
    add = parser.add_argument
    add("--rate", type=real(1), default=50, help="requests a second (default %(default)s)")
    add("--seconds", type=real(2), default=15, help="of each turn (default %(default)s)")
    add("--repeats", type=whole(), default=6, help="pairs of turns (default %(default)s)")
    add("--latency", type=real(0.01, 1), default=0.1, help="seconds (default %(default)s)")
    add("--concurrency", type=whole(), default=64, help="in flight (default %(default)s)")
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> None:
    with create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    turns = 2 * options.repeats * options.seconds + WARM_UP_SECONDS
    videos = SPARE * turns * options.concurrency * CHUNK / options.latency
    async with postgres({}) as server:
        await make_fleet(server, DATABASE, int(videos) // VIDEOS_EACH, VIDEOS_EACH)
        with (
            stand_in(latency_seconds=options.latency) as endpoint,
            _daemon(server, endpoint.base_url, address, options) as running,
        ):
            await asyncio.sleep(WARM_UP_SECONDS)
            pairs = [
                [await _turn(endpoint, running, address, rate, options.seconds) for rate in rates]
                for rates in [(0.0, options.rate)] * options.repeats
            ]
        await make_fleet(server, DATABASE, int(videos) // VIDEOS_EACH, 0)
        with _daemon(server, "http://127.0.0.1:9", address, options):
            async with server.connected(DATABASE) as connection:
                await connection.execute(SQL_SLEEP)
                await asyncio.sleep(WARM_UP_SECONDS)
                added = -await _statements(connection, address, 0.0, 2 * options.seconds)
                added += await _statements(connection, address, options.rate, 2 * options.seconds)
    show(pairs, added, options.rate)


def _daemon(server: Server, base_url: str, address: str, options: argparse.Namespace) -> Any:
    return daemon(
        server.url(DATABASE),
        base_url,
        http_listen=address,
        concurrency=options.concurrency,
        rate_limit_per_token=0,
    )


async def _turn(
    endpoint: Any, running: Daemon, address: str, rate: float, seconds: float
) -> tuple[float, float]:
    """Videos/s, and the daemon's cores."""
    clock = asyncio.get_running_loop().time
    begun, before, cpu = clock(), endpoint.stats().ids, running.cpu_seconds()
    async with _viewers(address, rate):
        await asyncio.sleep(seconds)
    took = clock() - begun
    return (endpoint.stats().ids - before) / took, (running.cpu_seconds() - cpu) / took


async def _statements(connection: Any, address: str, rate: float, seconds: float) -> float:
    """A second, of an idle daemon."""
    before: int = await connection.fetchval(SQL_STATEMENTS)
    async with _viewers(address, rate):
        await asyncio.sleep(seconds)
    await asyncio.sleep(TOLD_SECONDS)
    statements: int = await connection.fetchval(SQL_STATEMENTS)
    return (statements - before) / seconds


@asynccontextmanager
async def _viewers(address: str, rate: float) -> AsyncIterator[None]:
    """So many requests a second, evenly, whether they are answered in time or not."""
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(_ask(f"http://{address}", rate)) if rate else None
        yield
        if asking:
            asking.cancel()


async def _ask(base: str, rate: float) -> None:
    clock = asyncio.get_running_loop().time
    async with aiohttp.ClientSession(base) as session, asyncio.TaskGroup() as group:
        due = clock()
        for path in cycle(PATHS):
            group.create_task(_answered(session, path))
            due += 1 / rate
            await asyncio.sleep(due - clock())


async def _answered(session: aiohttp.ClientSession, path: str) -> None:
    async with session.get(path) as response:
        response.raise_for_status()
        await response.read()


def show(pairs: list[list[tuple[float, float]]], added: float, rate: float) -> None:
    names = ["nobody looks", f"{rate:g} requests a second"]
    print_table(
        ["turn", "videos/s", "daemon cores"],
        [
            [name, f"{median(videos):,.0f}", f"{median(cores):.3f}"]
            for name, turns in zip(names, zip(*pairs, strict=True), strict=True)
            for videos, cores in [zip(*turns, strict=True)]
        ],
    )
    kept = median(seen[0] / alone[0] for alone, seen in pairs)
    print_verdict(f"videos/s: {kept:.3f} of those without viewers", met=kept >= 1 - MOST_LOST)
    print_verdict(f"{added:.2f} statements a second more", met=added <= MOST_STATEMENTS)


if __name__ == "__main__":
    main()
