"""What a second and a fourth replica bring: python -m benchmarks.replicas.

Replicas of one daemon each, over one database, against an upstream that takes its time. Each has
few requests in flight, so that one alone is bound by waiting and not by the machine's cores. All
videos are due, there is no rate limit, and what is counted is the steady part: from when all
replicas have been at work for a while until shortly before the fleet is done.

Takes about ten minutes and 5 GB of disk, which it gives back.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import uvloop

from benchmarks.arguments import parser_of, real, whole
from benchmarks.counted_run import CLAIMS_FILE
from benchmarks.live import Daemon, daemon, postgres, print_table, print_verdict, stand_in
from benchmarks.world import Server, StandIn, make_fleet

DATABASE: Final = "replicas"
VIDEOS_EACH: Final = 100
CHUNK: Final = 20
#: For all replicas to have started and found their pace.
WARM_UP_SECONDS: Final = 6.0
#: Of the work: one that is left to the end is shared by too few.
SPARE: Final = 1.5
WAITS_SECONDS: Final = 0.05
#: A wait for a lock that lasts so long is written to the server's log, too.
SETTINGS: Final = {"log_lock_waits": "on", "deadlock_timeout": "100ms"}

SQL_WAITS: Final = """
SELECT count(*)
FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
SQL_DEADLOCKS: Final = """
SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()
"""
SQL_LOGGED_WAITS: Final = """
SELECT count(*)
FROM regexp_split_to_table(pg_read_file('log'), E'\\n') AS line
WHERE line LIKE '%still waiting for%'
"""


@dataclass(frozen=True, slots=True)
class Figures:
    videos_per_second: float
    claims: int
    empty_claims: int
    #: Of the looks at the server's processes: those with a wait for a lock.
    waits_share: float
    logged_waits: int
    deadlocks: int
    postgres_cores: float


def main() -> None:
    show(uvloop.run(measure_all(read_options())))


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.replicas", __doc__)
    add = parser.add_argument
    add(
        "--replicas",
        type=whole(),
        nargs="+",
        default=[1, 2, 4],
        help="in turn (default %(default)s)",
    )
    add(
        "--seconds",
        type=real(5),
        default=30,
        help="that are counted each time (default %(default)s)",
    )
    add(
        "--repeats",
        type=whole(),
        default=5,
        help="the table shows their medians (default %(default)s)",
    )
    add(
        "--latency", type=real(0.01, 1), default=0.2, help="seconds, upstream (default %(default)s)"
    )
    add(
        "--concurrency",
        type=whole(),
        default=16,
        help="requests in flight a replica (default %(default)s)",
    )
    return parser.parse_args()


async def measure_all(options: argparse.Namespace) -> dict[int, Sequence[Figures]]:
    """Round after round, so that what changes with time meets all alike."""
    figures: dict[int, list[Figures]] = {number: [] for number in options.replicas}
    async with postgres(SETTINGS) as server:
        for _ in range(options.repeats):
            for number, runs in figures.items():
                runs.append(await measure(server, number, options))
    return dict(figures)


async def measure(server: Server, number: int, options: argparse.Namespace) -> Figures:
    rate = number * options.concurrency * CHUNK / options.latency
    videos = SPARE * rate * (WARM_UP_SECONDS + options.seconds)
    await make_fleet(server, DATABASE, int(videos) // VIDEOS_EACH, VIDEOS_EACH)
    async with server.connected(DATABASE) as connection:
        logged = await connection.fetchval(SQL_LOGGED_WAITS)
        with (
            tempfile.TemporaryDirectory() as folder,
            stand_in(latency_seconds=options.latency) as endpoint,
        ):
            files = [Path(folder) / str(replica) for replica in range(number)]
            with ExitStack() as running:
                for file in files:
                    running.enter_context(_replica(server, endpoint, file, options))
                await asyncio.sleep(WARM_UP_SECONDS)
                rate, waits, cores = await _steady(server, connection, endpoint, options.seconds)
            claims = [json.loads(file.read_text()) for file in files]
        return Figures(
            videos_per_second=rate,
            claims=sum(counted["claims"] for counted in claims),
            empty_claims=sum(counted["empty"] for counted in claims),
            waits_share=waits,
            logged_waits=await connection.fetchval(SQL_LOGGED_WAITS) - logged,
            deadlocks=await connection.fetchval(SQL_DEADLOCKS),
            postgres_cores=cores,
        )


def _replica(
    server: Server, endpoint: StandIn, file: Path, options: argparse.Namespace
) -> AbstractContextManager[Daemon]:
    """A daemon that tells the file of its claims when it ends."""
    return daemon(
        server.url(DATABASE),
        endpoint.base_url,
        program="benchmarks.counted_run",
        variables={CLAIMS_FILE: str(file)},
        concurrency=options.concurrency,
        rate_limit_per_token=0,
    )


async def _steady(
    server: Server, connection: Any, endpoint: StandIn, seconds: float
) -> tuple[float, float, float]:
    """Videos/s, the share of looks that met a wait for a lock, and the server's cores."""
    clock = asyncio.get_running_loop().time
    begun, before, cpu_before = clock(), endpoint.stats(), server.cpu_seconds()
    looks = waits = 0
    while clock() < begun + seconds:
        looks += 1
        waits += bool(await connection.fetchval(SQL_WAITS))
        await asyncio.sleep(WAITS_SECONDS)
    took, after = clock() - begun, endpoint.stats()
    cores = (server.cpu_seconds() - cpu_before) / took
    return (after.ids - before.ids) / took, waits / looks, cores


def show(figures: dict[int, Sequence[Figures]]) -> None:
    fewest = min(figures)
    times = {number: _times(runs, figures[fewest]) for number, runs in figures.items()}
    print_table(
        ["replicas", "videos/s", f"times {fewest}", "empty claims", "looks that met a lock wait",
         "waits over 100 ms", "deadlocks", "PostgreSQL cores"],
        [_row(number, runs, times[number]) for number, runs in figures.items()],
    )  # fmt: skip
    if fewest == 1 and 4 in times:
        print_verdict(f"four replicas do {times[4]:.2f} times one", met=times[4] >= 3.6)


def _times(runs: Sequence[Figures], fewest: Sequence[Figures]) -> float:
    """Each run against the one of its own round."""
    pairs = zip(runs, fewest, strict=True)
    return median(run.videos_per_second / base.videos_per_second for run, base in pairs)


def _row(number: int, runs: Sequence[Figures], times: float) -> Sequence[str]:
    return [
        str(number),
        f"{median(run.videos_per_second for run in runs):,.0f}",
        f"{times:.2f}",
        f"{sum(run.empty_claims for run in runs)} of {sum(run.claims for run in runs)}",
        f"{median(run.waits_share for run in runs):.2%}",
        str(sum(run.logged_waits for run in runs)),
        str(sum(run.deadlocks for run in runs)),
        f"{median(run.postgres_cores for run in runs):.2f}",
    ]


if __name__ == "__main__":
    main()
