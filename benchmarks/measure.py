"""One run of one runner: the same job, the same figures."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import median
from typing import Final

from benchmarks.runners.job import CHUNK, IN_FLIGHT
from benchmarks.world import (
    LONGEST_SECONDS,
    Program,
    Server,
    StandIn,
    make_fleet,
    module,
    settle,
    stand_in,
)

DATABASE: Final = "job"
WATCH_SECONDS: Final = 0.1

#: Whether every account has been given back with nothing left to ask for; its results are stored
#: before that. To look at the videos themselves would be work for the server that no other runner
#: causes.
ALL_GIVEN_BACK: Final = """
SELECT NOT EXISTS (
    SELECT FROM refresher.accounts
    WHERE wake_at <= now() OR lease_owner IS NOT NULL OR failures > 0
)
"""
# Each video has the cover that it was given, to the letter where it can be told.
RESULT: Final = """
SELECT count(*) AS videos,
       count(*) FILTER (
           WHERE position(video_id IN cover_image_url) > 0
             AND cover_expires_at > now() + interval '2 hours'
             AND cover_expires_at = to_timestamp(
                 substring(cover_image_url FROM '[?&]x-expires=([0-9]+)')::bigint)
             AND refreshed_at > now() - interval '1 hour'
       ) AS valid,
       extract(epoch FROM max(pg_xact_commit_timestamp(xmin)))::float8 AS last_written
FROM refresher.videos
"""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done: all videos of so many accounts are due."""

    accounts: int
    videos_each: int
    latency_seconds: float

    @property
    def videos(self) -> int:
        return self.accounts * self.videos_each


@dataclass(frozen=True, slots=True)
class Runner:
    """A way to do the job: `module` is its program, None the refresher's daemon."""

    name: str
    title: str
    module: str | None
    #: For orientation: by it, slow ones are given fewer videos.
    about_videos_per_second: float
    in_flight: int = IN_FLIGHT
    #: It makes its jobs before the clock starts.
    enqueues: bool = False
    #: Beside those that it needs.
    variables: Mapping[str, str] = field(default_factory=dict)

    def fitting(self, job: Job, longest_seconds: float) -> Job:
        """As much of the job as it can be expected to do in that time, in tens of accounts."""
        rate = self.about_videos_per_second
        if job.latency_seconds:
            rate = min(rate, self.in_flight * CHUNK / job.latency_seconds)
        accounts = rate * longest_seconds / job.videos_each
        return replace(job, accounts=min(job.accounts, max(1, round(accounts / 10)) * 10))

    def program(self, database_url: str, base_url: str) -> Program:
        if self.module:
            return Program(module(self.module, database_url, base_url), dict(os.environ))
        environment = {**as_shipped(database_url, base_url), **self.variables}
        return Program(module("refresher", "run"), environment)


def as_shipped(database_url: str, base_url: str) -> dict[str, str]:
    """The daemon with everything on; no rate limit, as the job has none."""
    return {
        **os.environ,
        "REFRESHER_DATABASE_URL": database_url,
        "REFRESHER_TIKTOK_BASE_URL": base_url,
        "REFRESHER_RATE_LIMIT_PER_TOKEN": "0",
        "REFRESHER_HTTP_LISTEN": "127.0.0.1:0",
        "REFRESHER_LOG_FORMAT": "json",
    }


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run, or the median of several, came to; all but the first and the memory a video."""

    videos_per_second: float
    client_cpu_seconds: float
    postgres_cpu_seconds: float
    stand_in_cpu_seconds: float
    peak_memory_bytes: float
    statements: float
    commits: float
    wal_bytes: float
    wal_image_bytes: float
    requests: float


def medians(runs: Sequence[Figures]) -> Figures:
    """Field by field."""
    return Figures(
        **{f.name: median(getattr(run, f.name) for run in runs) for f in fields(Figures)}
    )


async def make_template(server: Server, runner: Runner, job: Job) -> str:
    """A database to copy for each run: the fleet, and the runner's jobs if it keeps a queue."""
    fleet = f"fleet_{job.accounts}"
    if not await server.has_database(fleet):
        await make_fleet(server, fleet, job.accounts, job.videos_each)
    if not (runner.enqueues and runner.module):
        return fleet
    name = f"{fleet}_{runner.name}"
    if not await server.has_database(name):
        await server.copy_database(fleet, name)
        enqueue = module(runner.module, server.url(name), "--enqueue")
        with Program(enqueue, dict(os.environ)) as enqueuing:
            enqueuing.end()
        async with server.connected(name) as connection:
            await settle(connection)
    return name


async def measure(server: Server, runner: Runner, template: str, job: Job) -> Figures:
    """One run on a fresh copy of the template. SystemExit where the job was not done."""
    await server.copy_database(template, DATABASE)
    with stand_in(job.latency_seconds) as endpoint:
        before, postgres_before = await server.counters(DATABASE), server.cpu_seconds()
        endpoint_before = endpoint.stats()
        with runner.program(server.url(DATABASE), endpoint.base_url) as program:
            if runner.module:
                await _ends(program)
            else:
                await _stop_when_done(server, endpoint, program, job.videos)
            client_cpu, memory = program.end()
        postgres_cpu = server.cpu_seconds() - postgres_before
        after, endpoint_after = await server.counters(DATABASE), endpoint.stats()
    wal, images = await server.wal_between(before.wal_position, after.wal_position)
    seconds = await _seconds(server, endpoint_after.first_arrival, job.videos, runner.name)
    stand_in_cpu = endpoint_after.cpu_seconds - endpoint_before.cpu_seconds
    return Figures(
        videos_per_second=job.videos / seconds,
        client_cpu_seconds=client_cpu / job.videos,
        postgres_cpu_seconds=postgres_cpu / job.videos,
        stand_in_cpu_seconds=stand_in_cpu / job.videos,
        peak_memory_bytes=memory,
        statements=(after.statements - before.statements) / job.videos,
        commits=(after.commits - before.commits) / job.videos,
        wal_bytes=wal / job.videos,
        wal_image_bytes=images / job.videos,
        requests=endpoint_after.requests / job.videos,
    )


async def _stop_when_done(server: Server, endpoint: StandIn, program: Program, videos: int) -> None:
    """A daemon does not end: the database is asked, but only when nothing is left to be asked for.

    These few looks are counted among its commits.
    """

    async def asked() -> bool:
        return not program.runs() or endpoint.stats().ids >= videos

    await _until(asked)
    async with server.connected(DATABASE) as connection:

        async def given_back() -> bool:
            return not program.runs() or bool(await connection.fetchval(ALL_GIVEN_BACK))

        await _until(given_back)
    program.stop()


async def _ends(program: Program) -> None:
    async def ended() -> bool:
        return not program.runs()

    await _until(ended)


async def _until(so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LONGEST_SECONDS):
        while not await so():  # noqa: ASYNC110 - no process or database sets an event of ours
            await asyncio.sleep(WATCH_SECONDS)


async def _seconds(server: Server, first_arrival: float, videos: int, name: str) -> float:
    """From the first request's arrival to the commit of the row that was written last.

    SystemExit where a video is not as it should be.
    """
    async with server.connected(DATABASE) as connection:
        result = await connection.fetchrow(RESULT)
    if not result["videos"] == result["valid"] == videos:
        raise SystemExit(f"{name}: expected {videos} valid videos, not {result['valid']}")
    return float(result["last_written"]) - first_arrival
