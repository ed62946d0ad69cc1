"""What it costs to be watched: python -m benchmarks.operations_load.

The operations endpoint is asked so often a second while the daemon has nothing to do, for the
statements that this adds; then while all videos are due, in turns with runs that nobody watches,
for the videos a second.
"""

import argparse
import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from benchmarks.arguments import parser_of, real, whole
from benchmarks.live import print_table, print_verdict
from benchmarks.measure import (
    DATABASE,
    Figures,
    Job,
    Runner,
    as_shipped,
    make_template,
    measure,
    medians,
)
from benchmarks.world import Program, Server, module, postgres, stand_in

MOST_STATEMENTS = 2.0
LEAST_SHARE = 0.98
SETTLED_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Served(Runner):
    """The daemon with its endpoint at a port that we know."""

    port: int = 0

    def program(self, database_url: str, base_url: str) -> Program:
        listens = {"REFRESHER_HTTP_LISTEN": f"127.0.0.1:{self.port}"}
        environment = as_shipped(database_url, base_url) | listens
        return Program(module("refresher", "run"), environment)


def main() -> None:
    parser = parser_of("python -m benchmarks.operations_load", __doc__)
    add = parser.add_argument
    add("--videos", type=whole(), default=200_000, help="(default %(default)s)")
    add("--accounts", type=whole(), default=2_000, help="of equal size (default %(default)s)")
    add("--pairs", type=whole(), default=5, help="(default %(default)s)")
    add("--seconds", type=real(1), default=60, help="with nothing to do (default %(default)s)")
    add("--rate", type=real(0.1), default=50, help="requests a second (default %(default)s)")
    add("--paths", default="/,/metrics", help="asked in turn (default %(default)s)")
    options = parser.parse_args()
    if options.videos % options.accounts:
        parser.error("expected --videos to be a multiple of --accounts")
    # So that what was started is also stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    asyncio.run(compare(options))


async def compare(options: argparse.Namespace) -> None:
    runner = Served("refresher", "cover refresher", None, 30_000, port=free_port())
    job = Job(options.accounts, options.videos // options.accounts, 0.0)
    async with postgres({}) as server:
        template = await make_template(server, runner, job)
        alone, watched = await take_turns(server, runner, template, job, options)
        # The last run has left nothing to do.
        idle = [await statements_a_second(server, runner, options, watch=w) for w in (False, True)]
    report(alone, watched, idle)


async def take_turns(
    server: Server, runner: Served, template: str, job: Job, options: argparse.Namespace
) -> tuple[Sequence[Figures], Sequence[Figures]]:
    """Which of a pair comes first changes, too."""
    alone: list[Figures] = []
    watched: list[Figures] = []
    for pair in range(options.pairs):
        for watch in (pair % 2 == 0, pair % 2 != 0):
            with asking(runner.port, options, watch=watch):
                figures = await measure(server, runner, template, job)
            (watched if watch else alone).append(figures)
    return alone, watched


async def statements_a_second(
    server: Server, runner: Served, options: argparse.Namespace, *, watch: bool
) -> float:
    with (
        stand_in(0.0) as endpoint,
        asking(runner.port, options, watch=watch),
        runner.program(server.url(DATABASE), endpoint.base_url) as program,
    ):
        await asyncio.sleep(SETTLED_SECONDS)
        before = await server.counters(DATABASE)
        await asyncio.sleep(options.seconds)
        after = await server.counters(DATABASE)
        program.stop()
        program.end()
    return (after.statements - before.statements) / float(options.seconds)


@contextmanager
def asking(port: int, options: argparse.Namespace, *, watch: bool) -> Iterator[None]:
    """Meanwhile the endpoint is asked, if it is to be watched. Says how it answered."""
    if not watch:
        yield
        return
    command = module(
        "benchmarks.asking", f"--port={port}", f"--rate={options.rate}", *options.paths.split(",")
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.terminate()
            told = json.loads(process.communicate()[0])
            print(
                f"- {told['good']} good answers, {told['bad']} bad, {told['none']} times none,"
                f" the slowest after {told['slowest']:.3f} s",
                flush=True,
            )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def report(alone: Sequence[Figures], watched: Sequence[Figures], idle: Sequence[float]) -> None:
    print_table(
        ("", "videos/s", "CPU s/million", "statements/s with nothing to do"),
        [
            (
                name,
                f"{figures.videos_per_second:,.0f}",
                f"{1e6 * figures.client_cpu_seconds:.1f}",
                f"{statements:.2f}",
            )
            for name, figures, statements in (
                ("alone", medians(alone), idle[0]),
                ("watched", medians(watched), idle[1]),
            )
        ],
    )
    pairs = zip(watched, alone, strict=True)
    shares = [own.videos_per_second / other.videos_per_second for own, other in pairs]
    added = idle[1] - idle[0]
    print(f"watched / alone by pair: {', '.join(f'{share:.3f}' for share in shares)}")
    print_verdict(
        f"{added:.2f} statements/s more, at most {MOST_STATEMENTS:g}", met=added <= MOST_STATEMENTS
    )
    print_verdict(
        f"{median(shares):.3f} of the videos/s, at least {LEAST_SHARE:g}",
        met=median(shares) >= LEAST_SHARE,
    )


if __name__ == "__main__":
    main()
