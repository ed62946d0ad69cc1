"""How long it takes to start: python -m benchmarks.start_up.

Two figures: `refresher --help` from its start to its end, and `refresher run` from its start to the
first request that the API gets, with one video due. With --against PATH the same of another
`refresher` program, in turns with this one.

Takes about a minute.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Final

import uvloop

from benchmarks.arguments import parser_of, whole
from benchmarks.live import postgres, print_table
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.postgres.database import Pool, connected
from refresher.postgres.migrate import migrate

FIRST_ID: Final = 7_000_000_000_000_000_000
LONGEST_SECONDS: Final = 60.0


@dataclass(frozen=True)
class World:
    """The database and the API that the programs find."""

    pool: Pool
    emulator: Emulator
    environment: Mapping[str, str]
    ids: "count[int]" = field(default_factory=lambda: count(FIRST_ID))

    async def add_due_video(self) -> None:
        video_id = str(next(self.ids))
        self.emulator.add_video("ana", video_id)
        await self.pool.execute(
            "INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', $1)", video_id
        )

    async def first_request_seconds(self, program: str) -> float:
        """From the start of the daemon to the first request; the daemon is stopped then."""
        await self.add_due_video()
        self.emulator.record.clear()
        started = monotonic()
        process = await asyncio.create_subprocess_exec(
            program, "run", env=self.environment, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            while not self.emulator.record:
                if process.returncode is not None or monotonic() > started + LONGEST_SECONDS:
                    raise SystemExit(f"{program} run has sent no request")
                await asyncio.sleep(0.002)
            return self.emulator.record[0].at - started
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()

    async def help_seconds(self, program: str) -> float:
        started = monotonic()
        process = await asyncio.create_subprocess_exec(
            program, "--help", stdout=asyncio.subprocess.DEVNULL
        )
        if await process.wait():
            raise SystemExit(f"{program} --help has failed")
        return monotonic() - started


def main() -> None:
    options = read_options()
    programs = [str(Path(sys.executable).with_name("refresher"))]
    if options.against:
        programs.append(options.against)
    figures = uvloop.run(measure(programs, options.runs))
    show(figures)


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.start_up", __doc__)
    add = parser.add_argument
    add("--runs", type=whole(), default=10, help="of each program (default %(default)s)")
    add("--against", metavar="PATH", help="another refresher program")
    return parser.parse_args()


Figures = Mapping[str, Sequence[tuple[float, float]]]
"""By program: seconds of help, and seconds to the first request, of each run."""


async def measure(programs: Sequence[str], runs: int) -> Figures:
    emulator = Emulator(EmulatorOptions())
    emulator.add_account("ana", "act.ana")
    async with postgres({}) as server, emulator.serving() as base_url:
        url = server.url("postgres")
        await migrate(url)
        environment = {
            **os.environ,
            "REFRESHER_DATABASE_URL": url,
            "REFRESHER_TIKTOK_BASE_URL": base_url,
        }
        async with connected(url, application_name="benchmark") as pool:
            await pool.execute(
                "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'act.ana')"
            )
            return await _in_turns(World(pool, emulator, environment), programs, runs)


async def _in_turns(world: World, programs: Sequence[str], runs: int) -> Figures:
    figures: dict[str, list[tuple[float, float]]] = {program: [] for program in programs}
    for run in range(-1, runs):  # the first run warms the disk cache and does not count
        for program in programs:
            took = await world.help_seconds(program), await world.first_request_seconds(program)
            if run >= 0:
                figures[program].append(took)
    return figures


def show(figures: Figures) -> None:
    print_table(
        ["program", "runs", "help, median s", "first request, median s"],
        [
            [program, str(len(took)), *(f"{median(one):.3f}" for one in zip(*took, strict=True))]
            for program, took in figures.items()
        ],
    )
    if len(figures) > 1:
        ours, others = figures.values()
        ratios = [
            [mine / other for mine, other in zip(*pair, strict=True)]
            for pair in zip(ours, others, strict=True)
        ]
        told = ", ".join(f"{median(one):.2f}" for one in zip(*ratios, strict=True))
        print(f"- ratios of the pairs, median of help and of the first request: {told}")


if __name__ == "__main__":
    main()
