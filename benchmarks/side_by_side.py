"""The same job side by side: the refresher, a bare pipeline, scripts and job queues.

One PostgreSQL, one stand-in of the endpoint in a process of its own, no rate limit, and videos that
are all due: they have covers that die in an hour. Each runner is a program of its own and gets a
fresh copy of the same database; repetitions take turns, so that a noisy machine is noisy to all.
The clock runs from the first request's arrival to the commit of the last row; queues have their
jobs made before it starts. Afterwards every row is checked. See docs/benchmarks.md.

Takes about a quarter of an hour and 6 GB of disk, which it gives back.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from benchmarks.arguments import file, parser_of, picture, real, reals, settings, whole
from benchmarks.chart import draw
from benchmarks.measure import Job, Runner, make_template, measure
from benchmarks.report import FULL_VIDEOS, Row, Table, markdown
from benchmarks.world import Server, module, postgres, shipped_settings, stand_in

RUNNERS: Final = (
    Runner("refresher", "cover refresher", None, 30_000),
    Runner("bare", "bare pipeline", "benchmarks.runners.bare", 50_000),
    Runner("asyncio", "asyncio script", "benchmarks.runners.asyncio_script", 30_000),
    Runner("pgqueuer", "PgQueuer", "benchmarks.runners.pgqueuer_jobs", 20_000, enqueues=True),
    Runner(
        "procrastinate",
        "Procrastinate",
        "benchmarks.runners.procrastinate_jobs",
        6_000,
        enqueues=True,
    ),
    Runner("plain", "plain script", "benchmarks.runners.plain", 3_000, in_flight=1),
)


def main() -> None:
    # So that what was started is also stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    asyncio.run(compare(read_options()))


def read_options() -> argparse.Namespace:
    parser = parser_of("make bench BENCH_ARGS='...'", __doc__)
    parser.usage = "%(prog)s"
    add = parser.add_argument
    add("--videos", type=whole(), default=FULL_VIDEOS, help="(default %(default)s)")
    add("--accounts", type=whole(), default=2_000, help="of equal size (default %(default)s)")
    add(
        "--repetitions",
        type=whole(),
        default=5,
        help="tables show their medians (default %(default)s)",
    )
    add(
        "--latencies",
        type=reals(0, 5),
        default="0,0.1",
        help="seconds, upstream (default %(default)s)",
    )
    names = ",".join(runner.name for runner in RUNNERS)
    add(
        "--runners",
        type=runners,
        default="all",
        help=f"all, or some of {names} (default %(default)s)",
    )
    add(
        "--longest",
        type=real(1),
        default=16,
        metavar="SECONDS",
        help="a runner known to need longer gets as many videos as fit in about that "
        "(default %(default)s)",
    )
    add(
        "--server",
        type=settings,
        default={},
        metavar="NAME=VALUE,...",
        help="settings of PostgreSQL, beside those of docker-compose.yml",
    )
    add("--markdown", type=file, metavar="FILE", help="the tables, to a file, too")
    add("--chart", type=picture, metavar="FILE.png", help="videos/s as bars")
    options = parser.parse_args()
    if options.videos % options.accounts:
        parser.error("expected --videos to be a multiple of --accounts")
    return options


def runners(text: str) -> Sequence[Runner]:
    known = {runner.name: runner for runner in RUNNERS}
    names = list(known) if text == "all" else text.split(",")
    if unknown := set(names) - set(known):
        raise argparse.ArgumentTypeError(
            f"expected some of {','.join(known)}, not {','.join(unknown)}"
        )
    return [known[name] for name in names]


async def compare(options: argparse.Namespace) -> None:
    answers_alone = capacity_of_stand_in()
    async with postgres(options.server) as server:
        tables = [
            Table(latency, await take_turns(server, options, latency))
            for latency in options.latencies
        ]
        with_settings = {**shipped_settings(), **options.server}
        given = ", ".join(f"{name}={value}" for name, value in with_settings.items())
        report = markdown(tables, answers_alone, f"{await server.version()} ({given})")
    print(report)
    if options.markdown:
        options.markdown.write_text(report)
    if options.chart:
        draw(tables, options.chart)


def capacity_of_stand_in() -> float:
    """Videos a second that it answers to a client that costs nothing."""
    with stand_in(0.0) as endpoint:
        load = module("benchmarks.load", endpoint.base_url)
        return float(subprocess.run(load, capture_output=True, check=True).stdout)


async def take_turns(
    server: Server, options: argparse.Namespace, latency_seconds: float
) -> Sequence[Row]:
    whole = Job(options.accounts, options.videos // options.accounts, latency_seconds)
    rows = [Row(runner, runner.fitting(whole, options.longest), []) for runner in options.runners]
    templates = [await make_template(server, row.runner, row.job) for row in rows]
    for repetition in range(1, options.repetitions + 1):
        for row, template in zip(rows, templates, strict=True):
            figures = await measure(server, row.runner, template, row.job)
            row.runs.append(figures)
            print(
                f"{repetition}/{options.repetitions}  {latency_seconds:g} s  "
                f"{row.runner.title:18}{figures.videos_per_second:9,.0f} videos/s",
                file=sys.stderr,
            )
    return rows


if __name__ == "__main__":
    main()
