"""How soon an inserted video is asked for: python -m benchmarks.insert_to_claim.

Videos are inserted into idle accounts at random moments, and it is measured when the API is asked
for each. Beside it, without a pause: audit steps, imports of other accounts' videos, and a second
replica. It must never take longer than one poll and the claim with its request.

Takes about ten minutes.
"""

import argparse
import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from time import monotonic
from typing import Final

import uvloop

from benchmarks.arguments import parser_of, real, whole
from benchmarks.live import daemon, postgres, print_table, print_verdict, quantile
from refresher.csv_files.rows import VideoRow
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.postgres.audit import audit_step
from refresher.postgres.database import Pool, connected
from refresher.postgres.imports import import_videos
from refresher.postgres.migrate import migrate

FIRST_ID: Final = 7_000_000_000_000_000_000
#: Accounts that videos are inserted into, in turns, and those that are imported into.
IDLE_ACCOUNTS: Final = 40
OTHER_ACCOUNTS: Final = 60
VIDEOS_EACH: Final = 50
IMPORTED_AT_ONCE: Final = 1_000
#: For the claim and the request after the poll has come, on a machine that does all of this.
OWN_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 60.0


@dataclass
class World:
    """The database and the API beside it."""

    pool: Pool
    emulator: Emulator
    ids: "count[int]" = field(default_factory=lambda: count(FIRST_ID))
    asked: dict[str, float] = field(default_factory=dict)
    audits: int = 0
    imports: int = 0

    async def add_accounts(self) -> None:
        for name in [*_idle(), *_others()]:
            self.emulator.add_account(name, f"act.{name}")
        await self.pool.execute(
            "INSERT INTO refresher.accounts (open_id, access_token)"
            " SELECT name, 'act.' || name FROM unnest($1::text[]) AS name",
            [*_idle(), *_others()],
        )
        rows = [
            (name, next(self.ids)) for name in [*_idle(), *_others()] for _ in range(VIDEOS_EACH)
        ]
        await self._import(rows)
        await self.pool.execute(
            "UPDATE refresher.accounts SET wake_at = now() + interval '20 hours'"
        )

    async def insert(self, open_id: str) -> float:
        """Insert a video; how long it takes until it is asked for."""
        video_id = str(next(self.ids))
        self.emulator.add_video(open_id, video_id)
        await self.pool.execute(
            "INSERT INTO refresher.videos (open_id, video_id) VALUES ($1, $2)", open_id, video_id
        )
        inserted = monotonic()
        while (asked := self.asked.get(video_id)) is None:
            if monotonic() > inserted + LONGEST_SECONDS:
                return LONGEST_SECONDS
            await asyncio.sleep(0.005)
        return asked - inserted

    async def watch(self) -> None:
        """Note when each video was asked for."""
        seen = 0
        while True:
            while seen < len(self.emulator.record):
                arrival = self.emulator.record[seen]
                self.asked.update(dict.fromkeys(arrival.video_ids, arrival.at))
                seen += 1
            await asyncio.sleep(0.002)

    async def audit(self) -> None:
        while True:
            await audit_step(self.pool)
            self.audits += 1

    async def import_others(self) -> None:
        others = _others()
        while True:
            await self._import(
                [(random.choice(others), next(self.ids)) for _ in range(IMPORTED_AT_ONCE)]
            )
            self.imports += 1

    async def _import(self, rows: Sequence[tuple[str, int]]) -> None:
        later = datetime.now(UTC) + timedelta(hours=20)
        videos = (
            VideoRow(line, open_id, str(video_id), f"https://x/{video_id}", later)
            for line, (open_id, video_id) in enumerate(rows, 1)
        )
        await import_videos(self.pool, videos, lambda _: later)


def _idle() -> list[str]:
    return [f"idle-{number}" for number in range(IDLE_ACCOUNTS)]


def _others() -> list[str]:
    return [f"other-{number}" for number in range(OTHER_ACCOUNTS)]


def main() -> None:
    options = read_options()
    took, world = uvloop.run(measure(options))
    show(took, world, options)


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.insert_to_claim", __doc__)
    add = parser.add_argument
    add("--tries", type=whole(), default=500, help="videos inserted (default %(default)s)")
    add("--poll", type=real(0.1, 60), default=1.0, help="seconds (default %(default)s)")
    add("--replicas", type=whole(1, 4), default=2, help="(default %(default)s)")
    add(
        "--inserting",
        type=whole(),
        default=1,
        help="at a time; what comes of one try makes the daemon look, too (default %(default)s)",
    )
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> tuple[Sequence[float], World]:
    async with postgres({}) as server, AsyncExitStack() as stack:
        url = server.url("postgres")
        await migrate(url)
        emulator = Emulator(EmulatorOptions())
        base_url = await stack.enter_async_context(emulator.serving())
        pool = await stack.enter_async_context(connected(url, application_name="benchmark"))
        world = World(pool, emulator)
        await world.add_accounts()
        with ExitStack() as running:
            for _ in range(options.replicas):
                running.enter_context(daemon(url, base_url, poll_seconds=options.poll))
            took = await _insert_beside_all(world, options)
        return took, world


async def _insert_beside_all(world: World, options: argparse.Namespace) -> Sequence[float]:
    beside = [
        asyncio.create_task(loop) for loop in (world.watch(), world.audit(), world.import_others())
    ]
    names = _idle()
    took: list[float] = []
    tries = iter(range(options.tries))

    async def insert_again_and_again() -> None:
        for number in tries:
            await asyncio.sleep(random.uniform(0, options.poll))
            took.append(await world.insert(names[number % len(names)]))

    await world.insert(names[0])  # one daemon is up
    await asyncio.sleep(3 * options.poll + 5)  # the others are, too, and all is idle
    await asyncio.gather(*(insert_again_and_again() for _ in range(options.inserting)))
    for task in beside:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return took


def show(took: Sequence[float], world: World, options: argparse.Namespace) -> None:
    print_table(
        ["tries", "poll s", "replicas", "p50 s", "p99 s", "max s", "audit steps", "imports"],
        [
            [
                str(len(took)),
                f"{options.poll:g}",
                str(options.replicas),
                f"{quantile(took, 0.5):.2f}",
                f"{quantile(took, 0.99):.2f}",
                f"{max(took):.2f}",
                str(world.audits),
                str(world.imports),
            ]
        ],
    )
    late = sum(seconds > options.poll + OWN_SECONDS for seconds in took)
    print_verdict(f"later than a poll and {OWN_SECONDS:g} s: {late}", met=not late)


if __name__ == "__main__":
    main()
