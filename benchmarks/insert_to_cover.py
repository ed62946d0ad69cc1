"""How soon an inserted video has its cover: python -m benchmarks.insert_to_cover.

First, on idle daemons with default settings, single videos are inserted, and it is measured when
the API is asked for each and when its cover is committed. In the same turns PgQueuer's worker
picks up jobs, and with --against FOLDER so does the build of another checkout, whose videos come
at random moments between its polls.

Then what being told costs applications: so many writers insert single videos for many accounts
that sleep, with each build's daemon at work, in pairs.

Takes about a quarter of an hour with --against.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from time import monotonic
from typing import Any, Final

import asyncpg
import uvloop
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks.arguments import checkout, parser_of, real, settings, whole
from benchmarks.builds import Build, compared
from benchmarks.live import daemon, postgres, print_table, print_verdict, quantile
from benchmarks.runners import pgqueuer_worker
from benchmarks.world import Server, module, stand_in
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator

FIRST_ID: Final = 7_000_000_000_000_000_000
ACCOUNTS: Final = 40
VIDEOS_EACH: Final = 50
#: The other build's default poll: its inserts come at any moment of it.
POLL_SECONDS: Final = 5.0
#: Between two videos: the daemon is idle again.
REST_SECONDS: Final = (0.5, 1.0)
LONGEST_SECONDS: Final = 60.0
#: For how many inserts of ours one of the other build's: it takes so much longer.
TIMES_AS_MANY: Final = 5
WRITERS: Final = 32
WRITTEN_ACCOUNTS: Final = 20_000
PAIRS: Final = 5
#: Of each build in a pair.
SLICES: Final = 8

ADD_ACCOUNTS: Final = """
INSERT INTO refresher.accounts (open_id, access_token)
SELECT 'account-' || number, 'act.account-' || number
FROM generate_series(0, $1::integer - 1) AS number
"""
ADD_VIDEOS: Final = """
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, refreshed_at,
                              due_at)
SELECT 'account-' || number, (6000000000000000000 + number * 1000 + v)::text, 'https://x/' || v,
       now() + interval '1 day', now(), now() + interval '20 hours'
FROM generate_series(0, $1::integer - 1) AS number, generate_series(1, $2::integer) AS v
"""
SLEEP: Final = """
UPDATE refresher.accounts SET wake_at = now() + interval '20 hours', videos = $1, valid = $1
"""
INSERT: Final = "INSERT INTO refresher.videos (open_id, video_id) VALUES ($1, $2)"
STORED: Final = """
SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM refresher.videos
WHERE open_id = $1 AND video_id = $2 AND cover_image_url IS NOT NULL
"""


@dataclass
class Took:
    """Seconds from before the INSERT, or the job's, until it has returned; until …"""

    given: list[float] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    stored: list[float] = field(default_factory=list)


@dataclass
class Contestant:
    """Who is given videos one by one."""

    name: str
    give: Callable[[str, str], Awaitable[None]]
    stored: Callable[[str, str], Awaitable[float | None]] | None
    rest: Callable[[], float]
    took: Took = field(default_factory=Took)


@dataclass
class Upstream:
    """The emulator, and the videos that it knows."""

    emulator: Emulator
    ids: "count[int]" = field(default_factory=lambda: count(FIRST_ID))

    def new_video(self) -> tuple[str, str]:
        video_id = str(next(self.ids))
        open_id = f"account-{int(video_id) % ACCOUNTS}"
        self.emulator.add_video(open_id, video_id)
        return open_id, video_id

    def asked_at(self, video_id: str, first: int) -> float | None:
        """On the monotonic clock; looks at the record from its `first` entry on."""
        for arrival in list(self.emulator.record)[first:]:
            if video_id in arrival.video_ids:
                return arrival.at
        return None


def main() -> None:
    options = read_options()
    uvloop.run(run(options))


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.insert_to_cover", __doc__)
    add = parser.add_argument
    add("--tries", type=whole(TIMES_AS_MANY), default=200, help="(default %(default)s)")
    add("--against", type=checkout, metavar="FOLDER", help="a checkout of another build")
    add("--pairs", type=whole(0), default=PAIRS, help="of the writers (default %(default)s)")
    add("--seconds", type=real(1), default=8, help="of each (default %(default)s)")
    add("--server", type=settings, default={}, metavar="NAME=VALUE,...", help="of PostgreSQL")
    return parser.parse_args()


async def run(options: argparse.Namespace) -> None:
    builds = compared(options.against)
    async with postgres({"max_connections": "200", **options.server}) as server:
        await show_latencies(server, builds, options.tries)
        if options.pairs and options.against:
            await show_writers(server, builds, options.pairs, options.seconds)


# --- From INSERT to cover ---


async def show_latencies(server: Server, builds: Sequence[Build], tries: int) -> None:
    emulator = Emulator(EmulatorOptions())
    for number in range(ACCOUNTS):
        emulator.add_account(f"account-{number}", f"act.account-{number}")
    async with AsyncExitStack() as stack:
        base_url = await stack.enter_async_context(emulator.serving())
        contestants = [
            await stack.enter_async_context(contestant(server, build, base_url)) for build in builds
        ]
        contestants.append(await stack.enter_async_context(pgqueuer(server, base_url)))
        upstream = Upstream(emulator)
        for one in contestants:
            await wait_for_cover(one, upstream)  # it is up
            one.took = Took()
        await asyncio.sleep(POLL_SECONDS)
        for _ in range(tries // TIMES_AS_MANY):
            for one in contestants:
                for _ in range(1 if one.name == "the build before" else TIMES_AS_MANY):
                    await asyncio.sleep(one.rest())
                    await wait_for_cover(one, upstream)
    show_contestants(contestants)


async def wait_for_cover(one: Contestant, upstream: Upstream) -> None:
    """Give it a video, and note when it was asked for and when its cover was stored."""
    open_id, video_id = upstream.new_video()
    first = len(upstream.emulator.record)
    begun, begun_at = monotonic(), time.time()
    await one.give(open_id, video_id)
    one.took.given.append(monotonic() - begun)
    while (asked_at := upstream.asked_at(video_id, first)) is None:
        check_time(begun, one.name)
        await asyncio.sleep(0.002)
    one.took.asked.append(asked_at - begun)
    while one.stored:
        if (stored_at := await one.stored(open_id, video_id)) is not None:
            one.took.stored.append(stored_at - begun_at)
            return
        check_time(begun, one.name)
        await asyncio.sleep(0.01)


def check_time(begun: float, name: str) -> None:
    if monotonic() > begun + LONGEST_SECONDS:
        raise SystemExit(f"{name} has not asked for a video, or not stored it")


@asynccontextmanager
async def contestant(server: Server, build: Build, base_url: str) -> AsyncIterator[Contestant]:
    """A daemon of this build with default settings, over a database of its own."""
    url = await fleet(server, build, ACCOUNTS, VIDEOS_EACH)
    connection = await asyncpg.connect(url)
    is_old = build.folder is not None

    async def give(open_id: str, video_id: str) -> None:
        await connection.execute(INSERT, open_id, video_id)

    async def stored(open_id: str, video_id: str) -> float | None:
        at: float | None = await connection.fetchval(STORED, open_id, video_id)
        return at

    with daemon(url, base_url, variables=build.variables):
        rest = (0.0, POLL_SECONDS) if is_old else REST_SECONDS
        yield Contestant(build.name, give, stored, lambda: random.uniform(*rest))
    await connection.close()


@asynccontextmanager
async def pgqueuer(server: Server, base_url: str) -> AsyncIterator[Contestant]:
    """PgQueuer's worker, over a database of its own. Nothing is stored: it picks jobs up."""
    await server.copy_database("template0", "queue")
    url = server.url("queue")
    await pgqueuer_worker.install(url)
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))

    async def give(open_id: str, video_id: str) -> None:
        await pgqueuer_worker.enqueue(queries, video_id, f"act.{open_id}")

    with worker(url, base_url):
        yield Contestant("PgQueuer", give, None, lambda: random.uniform(*REST_SECONDS))
    await connection.close()


@contextmanager
def worker(url: str, base_url: str) -> Iterator[None]:
    command = module("benchmarks.runners.pgqueuer_worker", url, base_url)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr) as process:
        try:
            yield
        finally:
            process.kill()


def show_contestants(contestants: Sequence[Contestant]) -> None:
    print_table(
        [
            "",
            "tries",
            "given: p50 ms",
            "asked for: p50 ms",
            "p99",
            "max",
            "stored: p50 ms",
            "p99",
            "max",
        ],
        [
            [
                one.name,
                str(len(one.took.asked)),
                f"{1000 * median(one.took.given):.1f}",
                *figures(one.took.asked),
                *figures(one.took.stored),
            ]
            for one in contestants
        ],
    )
    ours, *others = contestants
    for other in others:
        judge(ours.took, other)


def figures(took: Sequence[float]) -> list[str]:
    if not took:
        return ["-"] * 3
    return [
        f"{1000 * value:.1f}" for value in (quantile(took, 0.5), quantile(took, 0.99), max(took))
    ]


def judge(ours: Took, other: Contestant) -> None:
    if not other.took.stored:
        ratio = quantile(ours.asked, 0.5) / quantile(other.took.asked, 0.5)
        print_verdict(f"asked for, median to {other.name}'s: {ratio:.2f}", met=ratio <= 1)
        return
    middle = quantile(other.took.stored, 0.5) / quantile(ours.stored, 0.5)
    worst = max(other.took.stored) / max(ours.stored)
    print_verdict(f"stored, median: 1/{middle:.0f} of {other.name}", met=middle >= 15)
    print_verdict(f"stored, worst: 1/{worst:.0f} of {other.name}", met=worst >= 10)


# --- What writers pay ---


async def show_writers(server: Server, builds: Sequence[Build], pairs: int, seconds: float) -> None:
    rows, ratios = [], []
    async with AsyncExitStack() as stack:
        endpoint = stack.enter_context(stand_in(0))
        writers = [
            await stack.enter_async_context(writing(server, build, endpoint.base_url))
            for build in builds
        ]
        await asyncio.sleep(POLL_SECONDS)  # the daemons start
        for one in writers:
            await one(POLL_SECONDS)  # by then each has begun to refresh
        for pair in range(pairs):
            ours, others = await in_turns(writers, seconds)
            ratios.append(ours / others)
            rows.append([str(pair + 1), f"{ours:,.0f}", f"{others:,.0f}", f"{ratios[-1]:.3f}"])
    print_table(["pair", "inserts/s", "the build before", "ratio"], rows)
    print_verdict(f"median of the ratios: {median(ratios):.3f}", met=median(ratios) >= 0.95)


async def in_turns(
    writers: Sequence[Callable[[float], Awaitable[float]]], seconds: float
) -> Sequence[float]:
    """Inserts a second of each, in slices: what disturbs the machine disturbs both."""
    written = [0.0] * len(writers)
    for part in range(SLICES):
        order = range(len(writers)) if part % 2 else reversed(range(len(writers)))
        for number in order:
            written[number] += await writers[number](seconds / SLICES)
    return [inserts / SLICES for inserts in written]


@asynccontextmanager
async def writing(
    server: Server, build: Build, base_url: str
) -> AsyncIterator[Callable[[float], Awaitable[float]]]:
    """Writes single videos for so many seconds, into accounts in turn; says inserts a second.

    By as many writers at once. A daemon of the build refreshes what they insert.
    """
    url = await fleet(server, build, WRITTEN_ACCOUNTS, 1)
    ids = count(FIRST_ID)
    with daemon(url, base_url, variables=build.variables):
        async with asyncpg.create_pool(url, min_size=WRITERS, max_size=WRITERS) as pool:
            yield lambda seconds: write(pool, ids, seconds)


async def write(pool: Any, ids: "count[int]", seconds: float) -> float:
    """Inserts a second, each by itself, into accounts in turn."""
    begun, written = monotonic(), 0

    async def insert_again_and_again() -> None:
        nonlocal written
        async with pool.acquire() as connection:
            while monotonic() < begun + seconds:
                number = next(ids)
                open_id = f"account-{number % WRITTEN_ACCOUNTS}"
                await connection.execute(INSERT, open_id, str(number))
                written += 1

    await asyncio.gather(*(insert_again_and_again() for _ in range(WRITERS)))
    return written / (monotonic() - begun)


async def fleet(server: Server, build: Build, accounts: int, videos_each: int) -> str:
    """The URL of a new database whose accounts sleep, of this build's revision."""
    name = "before" if build.folder else "now"
    await server.copy_database("template0", name)
    url = server.url(name)
    build.migrate(url)
    async with server.connected(name) as connection:
        await connection.execute(ADD_ACCOUNTS, accounts)
        await connection.execute(ADD_VIDEOS, accounts, videos_each)
        await connection.execute(SLEEP, videos_each)
        await connection.execute("VACUUM (FREEZE, ANALYZE)")
    return url


if __name__ == "__main__":
    main()
