"""What a replica takes of the machine: python -m benchmarks.footprint --against FOLDER.

The job of `make bench` as whole processes, from their start to their end: `refresher once`, and the
bare pipeline. Then the daemon at full load with everything on, as `make bench` measures it. With
--against FOLDER so does the build of another checkout, in the same turns.

Where others use the machine, CPU tells more than time: it is that of the process, and that of
PostgreSQL meanwhile.

Takes about five minutes with --against, and 3 GB of disk, which it gives back.
"""

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import Final

import uvloop

from benchmarks.arguments import checkout, parser_of, whole
from benchmarks.builds import Build, compared
from benchmarks.live import MB, print_table
from benchmarks.measure import DATABASE, Job, Runner, as_shipped, make_template, measure
from benchmarks.report import FULL_VIDEOS
from benchmarks.world import Program, Server, module, postgres, stand_in

WATCH_SECONDS: Final = 0.01
ACCOUNTS: Final = 2_000
BARE: Final = Runner("bare", "bare pipeline", "benchmarks.runners.bare", 50_000)


@dataclass(frozen=True, slots=True)
class Took:
    """What one process came to; seconds, and peak bytes."""

    seconds: float
    cpu_seconds: float
    postgres_cpu_seconds: float
    memory_bytes: float


def daemon_of(build: Build) -> Runner:
    return Runner(build.name, build.name, None, 30_000, variables=build.variables)


#: By the name of the program, each of its runs.
Runs = Mapping[str, list[Took]]


def main() -> None:
    options = read_options()
    uvloop.run(compare(options))


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.footprint", __doc__)
    add = parser.add_argument
    add("--videos", type=whole(), default=FULL_VIDEOS, help="(default %(default)s)")
    add("--pairs", type=whole(), default=5, help="(default %(default)s)")
    add("--against", type=checkout, metavar="FOLDER", help="a checkout of another build")
    options = parser.parse_args()
    if options.videos % ACCOUNTS:
        parser.error(f"expected --videos to be a multiple of {ACCOUNTS}")
    return options


async def compare(options: argparse.Namespace) -> None:
    builds = compared(options.against)
    job = Job(ACCOUNTS, options.videos // ACCOUNTS, 0.0)
    async with postgres({}) as server:
        template = await make_template(server, BARE, job)
        once, daemons = await take_turns(server, template, job, builds, options.pairs)
    print("\nWhole processes, `once` and the bare pipeline:\n")
    show(once, job.videos)
    print("\nThe daemon at full load:\n")
    show(daemons, job.videos)


async def take_turns(
    server: Server, template: str, job: Job, builds: Sequence[Build], pairs: int
) -> tuple[Runs, Runs]:
    """Of whole processes, and of daemons."""
    names = [*(build.name for build in builds), BARE.title]
    once: Runs = {name: [] for name in names}
    daemons: Runs = {name: [] for name in names}
    for turn in range(-1, pairs):  # the first turn warms the disk cache and does not count
        for build in builds:
            took = await whole_process(server, template, build)
            loaded = await full_load(server, template, job, daemon_of(build))
            if turn >= 0:
                once[build.name].append(took)
                daemons[build.name].append(loaded)
        took = await whole_process(server, template, None)
        loaded = await full_load(server, template, job, BARE)
        if turn >= 0:
            once[BARE.title].append(took)
            daemons[BARE.title].append(loaded)
    return once, daemons


async def whole_process(server: Server, template: str, build: Build | None) -> Took:
    """`once` of the build, None: the bare pipeline. SystemExit where it does not go well."""
    await server.copy_database(template, DATABASE)
    url = server.url(DATABASE)
    with stand_in(0.0) as endpoint:
        if build:
            environment = {**as_shipped(url, endpoint.base_url), **build.variables}
            command = module("refresher", "once")
        else:
            environment = dict(os.environ)
            command = module(str(BARE.module), url, endpoint.base_url)
        postgres_before, started = server.cpu_seconds(), monotonic()
        with Program(command, environment) as program:
            while program.runs():  # noqa: ASYNC110 - no process sets an event of ours
                await asyncio.sleep(WATCH_SECONDS)
            seconds = monotonic() - started
            cpu, memory = program.end()
        return Took(seconds, cpu, server.cpu_seconds() - postgres_before, memory)


async def full_load(server: Server, template: str, job: Job, runner: Runner) -> Took:
    figures = await measure(server, runner, template, job)
    return Took(
        seconds=job.videos / figures.videos_per_second,
        cpu_seconds=figures.client_cpu_seconds * job.videos,
        postgres_cpu_seconds=figures.postgres_cpu_seconds * job.videos,
        memory_bytes=figures.peak_memory_bytes,
    )


def show(runs: Runs, videos: int) -> None:
    """Medians; ratios are medians of the ratios within each turn."""
    bare = runs[BARE.title]
    before = runs.get("the build before", bare)
    print_table(
        (
            *("", "videos/s", "to bare", "CPU s", "to before", "PostgreSQL CPU s", "to before"),
            *("peak memory MB", "to before"),
        ),
        [
            [
                name,
                f"{videos / median(one.seconds for one in took):,.0f}",
                f"{ratio(bare, took, 'seconds'):.2f}",
                f"{median(one.cpu_seconds for one in took):.2f}",
                f"{ratio(took, before, 'cpu_seconds'):.2f}",
                f"{median(one.postgres_cpu_seconds for one in took):.2f}",
                f"{ratio(took, before, 'postgres_cpu_seconds'):.2f}",
                f"{median(one.memory_bytes for one in took) / MB:.1f}",
                f"{ratio(took, before, 'memory_bytes'):.2f}",
            ]
            for name, took in runs.items()
        ],
    )


def ratio(ours: Sequence[Took], theirs: Sequence[Took], name: str) -> float:
    pairs = zip(ours, theirs, strict=True)
    return float(median(getattr(one, name) / getattr(other, name) for one, other in pairs))


if __name__ == "__main__":
    main()
