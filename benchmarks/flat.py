"""What ten million videos cost that a hundred thousand do not: python -m benchmarks.flat.

Two fleets of the same very unequal shape (see benchmarks/uneven_fleet.py), each in a PostgreSQL of
its own, rows scattered all over the table. Measured against each: an idle daemon, summary, status
and audit with nothing due; then, with one account in seven due at once, as after an outage of
hours, the summary again, and claim, write-back and release as the daemon calls them, one after the
other, by the clock of who waits for them; then the daemon itself at full load.

The server has a quarter of a machine with 24 GB for its buffers: less than the large table.

Takes a quarter to half an hour, a third of it to load the large fleet, and 25 GB of disk, which it
gives back unless they are kept.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, Final, TypeVar

import asyncpg
import uvloop

from benchmarks.arguments import folder, parser_of, real, whole
from benchmarks.live import (
    MB,
    daemon,
    postgres,
    print_table,
    print_verdict,
    quantile,
    stand_in,
)
from benchmarks.uneven_fleet import LEAD, fall_due, load, rest, thinned
from benchmarks.world import Server
from refresher.domain.conclude import conclude
from refresher.domain.model import CHUNK_SIZE, ChunkWrite, Claim, Release, Write
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.audit import audit_step
from refresher.postgres.database import Pool, connected
from refresher.postgres.migrate import migrate
from refresher.postgres.status import read_leases, read_quota, read_summary
from refresher.postgres.write_back import write_back
from refresher.simulation.steady_fleet import sizes

T = TypeVar("T")

DATABASE: Final = "fleet"
SETTINGS: Final = {
    "shared_buffers": "6GB",
    "effective_cache_size": "16GB",
    "max_wal_size": "8GB",
}
EXPLAINING: Final = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "25ms",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_parameter_max_length": "0",
}
SMALLER: Final = 100
DUE_ONE_IN: Final = 7
REPEATS: Final = 10
#: An account so large that a claim cannot but be long if it reads all of it.
LARGE: Final = 10_000
#: Twice the requests in flight, as the daemon claims at most.
CHUNK_BUDGET: Final = 128
#: No more than a claim has read; the daemon writes what several claims brought.
WRITTEN_AT_ONCE: Final = 1_000
LIMIT: Final = 600
LEASE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 5.0
START_SECONDS: Final = 15.0
NOWHERE: Final = "http://127.0.0.1:9"
COVER_LIFE: Final = timedelta(days=1)
#: About so many videos are more than a daemon refreshes while covers live so long.
LOADED_VIDEOS: Final = 1_500_000
SHORT_LIFE_SECONDS: Final = 3
URL: Final = "https://p16-sign.tiktokcdn-us.com/obj/" + "u" * 330

SPENT: Final = """
SELECT coalesce(sum(calls), 0)::bigint AS calls, coalesce(sum(total_exec_time), 0) AS milliseconds
FROM pg_stat_statements
WHERE toplevel
"""


@dataclass
class Figures:
    """Of one fleet. Times are milliseconds; those of reports are the database's, worst first."""

    videos: int = 0
    accounts: int = 0
    table_mb: float = 0
    index_mb: float = 0
    idle_daemon_cores: float = 0
    idle_postgres_cores: float = 0
    statements_per_poll: float = 0
    summary: float = 0
    status: float = 0
    audit: float = 0
    due: int = 0
    summary_when_due: float = 0
    claims: list[float] = field(default_factory=list)
    claims_of_large: list[float] = field(default_factory=list)
    write_backs: list[float] = field(default_factory=list)
    releases: list[float] = field(default_factory=list)
    releases_of_large: list[float] = field(default_factory=list)
    videos_per_second: float = 0
    daemon_cores: float = 0
    peak_memory_mb: float = 0


def main() -> None:
    large, options = read_options()
    fleets = {"small": thinned(large, SMALLER), "large": large}
    figures = [uvloop.run(measure(name, fleet, options)) for name, fleet in fleets.items()]
    show(figures)
    judge(*figures)


def read_options() -> tuple[Sequence[int], argparse.Namespace]:
    """How many videos each account of the large fleet has, and the rest."""
    parser = parser_of("python -m benchmarks.flat", __doc__)
    add = parser.add_argument
    add("--accounts", type=whole(10 * SMALLER), default=100_000, help="(default %(default)s)")
    add("--videos", type=whole(), default=10_000_000, help="of all of them (default %(default)s)")
    add(
        "--claims",
        type=whole(),
        default=500,
        help="that are timed, with the rest (default %(default)s)",
    )
    add("--idle-seconds", type=real(1), default=60, help="of the idle daemon (default %(default)s)")
    add("--load-seconds", type=real(1), default=45, help="at full load (default %(default)s)")
    add(
        "--keep",
        type=folder,
        metavar="FOLDER",
        help="for both servers' data, found by the next run",
    )
    add(
        "--explain",
        action="store_true",
        help="plans of all that takes 25 ms go to the server's log in the kept folder",
    )
    options = parser.parse_args()
    try:
        return sizes(options.videos, options.accounts), options
    except ValueError as error:
        parser.error(f"--videos: {error}")


async def measure(name: str, fleet: Sequence[int], options: argparse.Namespace) -> Figures:
    figures = Figures(videos=sum(fleet), accounts=len(fleet))
    settings = {**SETTINGS, **(EXPLAINING if options.explain else {})}
    async with postgres(settings, _folder(name, options)) as server:
        await _find_or_load(server, fleet)
        async with server.connected(DATABASE) as connection:
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            await rest(connection)
            await _settled(connection, figures)
            await _measure_idle(server, connection, options.idle_seconds, figures)
            async with connected(server.url(DATABASE), application_name="flat") as pool:
                await _measure_reports(connection, pool, figures)
                figures.due = await fall_due(connection, DUE_ONE_IN)
                await _settled(connection, figures)
                figures.summary_when_due = await _database_time(
                    connection, lambda: read_summary(pool), repeats=3
                )
                await _work(connection, pool, options.claims, figures)
            await _measure_load(server, options, connection, figures)
    return figures


# --- The fleets ---


def _folder(name: str, options: argparse.Namespace) -> Path | None:
    """Where a server's data stays; None: nowhere."""
    return None if options.keep is None else Path(options.keep).resolve() / name


async def _find_or_load(server: Server, fleet: Sequence[int]) -> None:
    try:
        async with server.connected(DATABASE) as connection:
            found = await connection.fetchval("SELECT count(*) FROM refresher.accounts")
    except asyncpg.InvalidCatalogNameError:
        found = 0
    if found == len(fleet):
        await migrate(server.url(DATABASE))
    else:
        await load(server, DATABASE, fleet)


async def _settled(connection: Any, figures: Figures) -> None:
    """No vacuum in the middle of it, and no page left to be written for the first time."""
    await connection.execute("VACUUM (ANALYZE) refresher.accounts, refresher.videos")
    await connection.execute("CHECKPOINT")
    size = "SELECT {}('refresher.videos') / 1e6::float8"
    figures.table_mb = await connection.fetchval(size.format("pg_table_size"))
    figures.index_mb = await connection.fetchval(size.format("pg_indexes_size"))


# --- What is measured ---


async def _measure_idle(server: Server, connection: Any, seconds: float, figures: Figures) -> None:
    """A daemon that finds nothing due, so it asks nobody."""
    with daemon(server.url(DATABASE), NOWHERE, poll_seconds=POLL_SECONDS) as idle:
        await asyncio.sleep(START_SECONDS)
        await connection.fetchval("SELECT pg_stat_statements_reset()")
        begun, cpu, postgres = perf_counter(), idle.cpu_seconds(), server.cpu_seconds()
        await asyncio.sleep(seconds)
        took = perf_counter() - begun
        figures.idle_daemon_cores = (idle.cpu_seconds() - cpu) / took
        figures.idle_postgres_cores = (server.cpu_seconds() - postgres) / took
        spent = await connection.fetchrow(SPENT)
        figures.statements_per_poll = spent["calls"] / (took / POLL_SECONDS)


async def _measure_reports(connection: Any, pool: Pool, figures: Figures) -> None:
    async def status() -> None:
        await read_summary(pool)
        await read_quota(pool)
        await read_leases(pool)

    figures.summary = await _database_time(connection, lambda: read_summary(pool))
    figures.status = await _database_time(connection, status)
    figures.audit = await _database_time(connection, lambda: audit_step(pool, managed=True))


async def _database_time(
    connection: Any, call: Callable[[], Awaitable[object]], repeats: int = REPEATS
) -> float:
    """The mean; the first call, which is not counted, also finds what it reads in memory."""
    await call()
    await connection.fetchval("SELECT pg_stat_statements_reset()")
    for _ in range(repeats):
        await call()
    spent = await connection.fetchrow(SPENT)
    return float(spent["milliseconds"]) / repeats


async def _work(connection: Any, pool: Pool, claims: int, figures: Figures) -> None:
    """Claim, write back, release, over and over, as fast as it goes."""
    rows = await connection.fetch("SELECT open_id FROM refresher.accounts WHERE videos > $1", LARGE)
    large = {row["open_id"] for row in rows}
    leases = Accounts(
        pool,
        replica="flat",
        pace=Pace(LIMIT, 0, lease_seconds=LEASE_SECONDS),
    )
    await leases.claim(1)  # connects and prepares
    done = 0
    while done < claims:
        times: list[float] = []
        if claimed := await _timed(times, leases.claim(CHUNK_BUDGET)):
            has_large = not large.isdisjoint(claim.open_id for claim in claimed)
            (figures.claims_of_large if has_large else figures.claims).extend(times)
            await _write_back(pool, claimed, figures)
            releases = [_release(claim) for claim in claimed]
            releasing = figures.releases_of_large if has_large else figures.releases
            await _timed(releasing, leases.release(releases))
            done += 1
        else:
            await fall_due(connection, DUE_ONE_IN)  # a small fleet is soon done


def _release(claim: Claim) -> Release:
    return conclude(claim, [], 0.0, answered=True, requests=claim.chunks)


async def _write_back(pool: Pool, claimed: Sequence[Claim], figures: Figures) -> None:
    chunks = [chunk for claim in claimed for chunk in _answered(claim)]
    size = WRITTEN_AT_ONCE // CHUNK_SIZE
    for first in range(0, len(chunks), size):
        batch = chunks[first : first + size]
        rows = sum(chunk.videos for chunk in batch)
        whole = figures.write_backs if rows >= WRITTEN_AT_ONCE * 0.9 else []
        await _timed(whole, write_back(pool, batch))


def _answered(claim: Claim) -> Iterator[ChunkWrite]:
    expires_at = claim.time.now + COVER_LIFE
    for first in range(0, len(claim.videos), CHUNK_SIZE):
        ids = [video.video_id for video in claim.videos[first : first + CHUNK_SIZE]]
        write = Write(ids, expires_at - LEAD, expires_at, [URL] * len(ids))
        yield ChunkWrite(claim.open_id, claim.lease_epoch, [write], claim.ctids)


async def _timed(times: list[float], call: Awaitable[T]) -> T:
    begun = perf_counter()
    result = await call
    times.append(1000 * (perf_counter() - begun))
    return result


async def _measure_load(
    server: Server, options: argparse.Namespace, connection: Any, figures: Figures
) -> None:
    """The daemon with no limit to hold it back, and covers so short-lived that all stay due."""
    one_in = max(1, round(figures.videos / LOADED_VIDEOS))
    await fall_due(connection, one_in, left=timedelta(0))
    with (
        stand_in(cover_ttl_seconds=SHORT_LIFE_SECONDS) as endpoint,
        daemon(server.url(DATABASE), endpoint.base_url, rate_limit_per_token=0) as busy,
    ):
        await asyncio.sleep(START_SECONDS)
        before, cpu, begun = endpoint.stats(), busy.cpu_seconds(), perf_counter()
        await asyncio.sleep(options.load_seconds)
        took = perf_counter() - begun
        figures.videos_per_second = (endpoint.stats().ids - before.ids) / took
        figures.daemon_cores = (busy.cpu_seconds() - cpu) / took
        figures.peak_memory_mb = busy.peak_memory_bytes() / MB


# --- What is shown ---


def show(fleets: Sequence[Figures]) -> None:
    rows: Mapping[str, Callable[[Figures], str]] = {
        "videos": lambda f: f"{f.videos:,}",
        "accounts": lambda f: f"{f.accounts:,}",
        "table, its index, MB": lambda f: f"{f.table_mb:,.0f}, {f.index_mb:,.0f}",
        "idle daemon, share of a core": lambda f: f"{f.idle_daemon_cores:.2%}",
        "PostgreSQL meanwhile": lambda f: f"{f.idle_postgres_cores:.2%}",
        "idle, statements a poll": lambda f: f"{f.statements_per_poll:.2f}",
        "summary, nothing due, ms": lambda f: f"{f.summary:.1f}",
        "status, nothing due, ms": lambda f: f"{f.status:.1f}",
        "audit step, ms": lambda f: f"{f.audit:.1f}",
        "videos that fall due at once": lambda f: f"{f.due:,}",
        "summary then, ms": lambda f: f"{f.summary_when_due:,.1f}",
        "claim, ms": lambda f: _spread(f.claims + f.claims_of_large),
        "claim without accounts over 10,000, ms": lambda f: _spread(f.claims),
        "claim with one, ms": lambda f: _spread(f.claims_of_large),
        "write-back of 1,000, ms": lambda f: _spread(f.write_backs),
        "write-back, us a row, about": lambda f: (
            f"{1000 * fmean(f.write_backs) / WRITTEN_AT_ONCE:.1f}" if f.write_backs else "-"
        ),
        "release, ms": lambda f: _spread(f.releases),
        "release with such an account, ms": lambda f: _spread(f.releases_of_large),
        "full load, videos/s": lambda f: f"{f.videos_per_second:,.0f}",
        "full load, daemon cores": lambda f: f"{f.daemon_cores:.2f}",
        "full load, peak memory MB": lambda f: f"{f.peak_memory_mb:.0f}",
    }
    print_table(
        ["times: p50 / p99 / worst (how many)", "small", "large"],
        [[name, *(tell(figures) for figures in fleets)] for name, tell in rows.items()],
    )


def _spread(times: Sequence[float]) -> str:
    if not times:
        return "-"
    middle, high = quantile(times, 0.5), quantile(times, 0.99)
    return f"{middle:.1f} / {high:.1f} / {max(times):.1f} ({len(times):,})"


def judge(small: Figures, large: Figures) -> None:
    print()
    high = quantile(large.claims + large.claims_of_large, 0.99)
    print_verdict(f"claim p99 {high:.1f} ms of at most 25", met=high <= 25)
    for when, summary in (
        ("with nothing due", large.summary),
        ("with one account in seven due", large.summary_when_due),
    ):
        print_verdict(f"summary {when} {summary:,.1f} ms of at most 50", met=summary <= 50)
    idle = large.idle_daemon_cores
    print_verdict(f"idle daemon {idle:.2%} of a core, of at most 1 %", met=idle <= 0.01)
    statements = large.statements_per_poll
    print_verdict(f"{statements:.2f} statements a poll of at most 2", met=statements <= 2)
    for figures in (small, large):
        print_verdict(
            f"{figures.peak_memory_mb:.0f} MB at {figures.videos:,} videos, of at most 100",
            met=figures.peak_memory_mb <= 100,
        )


if __name__ == "__main__":
    main()
