"""How long a forecast takes: python -m benchmarks.forecast.

A fleet of very unequal accounts (see benchmarks/uneven_fleet.py), its rows scattered all over the
table. Measured: the reading, with the blocks that it touches, and then the forecast of a week under
the app's limit and under half of it; and both as the daemon does it beside its work.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Final

import uvloop

from benchmarks.arguments import folder, parser_of, whole
from benchmarks.live import postgres, print_table
from benchmarks.uneven_fleet import load
from benchmarks.world import Server
from refresher.assembly import plan_of
from refresher.domain.stored import Stored
from refresher.postgres.database import connected
from refresher.postgres.stored import BRIEF, THOROUGH, Depth, read_stored
from refresher.settings import read_settings
from refresher.simulation.outlook import look_ahead, look_at_today
from refresher.simulation.plan import DAY_SECONDS
from refresher.simulation.steady_fleet import sizes

DATABASE: Final = "fleet"
SETTINGS: Final = {"shared_buffers": "2GB", "max_wal_size": "8GB"}


async def timed_reading(
    server: Server, depth: Depth, look: Callable[[Stored], object]
) -> list[str]:
    """Seconds of the reading, blocks, videos read, seconds of the looking ahead."""
    async with connected(server.url(DATABASE), application_name="benchmark") as pool:
        before = await _blocks(server)
        begun = perf_counter()
        stored = await read_stored(pool, depth, managed=True, fingerprint=None)
        read = perf_counter()
        blocks = await _blocks(server) - before
    looking, worked = perf_counter(), process_time()
    look(stored)
    return [
        f"{read - begun:.2f}",
        f"{blocks:,}",
        f"{stored.sampled or stored.videos:,}",
        f"{perf_counter() - looking:.2f}",
        f"{process_time() - worked:.2f}",
    ]


async def _blocks(server: Server) -> int:
    async with server.connected(DATABASE) as connection:
        await connection.fetchval("SELECT pg_stat_force_next_flush()")
        return int(
            await connection.fetchval(
                "SELECT blks_read + blks_hit FROM pg_stat_database WHERE datname = $1", DATABASE
            )
        )


async def main() -> None:
    parser = parser_of("python -m benchmarks.forecast", __doc__)
    parser.add_argument("--videos", type=whole(), default=1_000_000)
    parser.add_argument("--accounts", type=whole(), default=10_000)
    parser.add_argument("--app-limit", type=whole(), default=60)
    parser.add_argument("--keep", type=folder, help="keep the server's data there")
    given = parser.parse_args()
    settings = read_settings(database_url="postgresql:///", rate_limit_per_app=given.app_limit)
    week, day = (plan_of(settings, "hourly", days * DAY_SECONDS) for days in (7, 1))
    async with postgres(SETTINGS, given.keep) as server:
        if not await server.has_database(DATABASE):
            await load(server, DATABASE, sizes(given.videos, given.accounts))
        rows = [
            [
                "forecast",
                *await timed_reading(server, THOROUGH, lambda read: look_ahead(read, week)),
            ],
            ["daemon", *await timed_reading(server, BRIEF, lambda read: look_at_today(read, day))],
        ]
    print_table(["", "reading (s)", "blocks", "videos read", "looking ahead (s)", "of CPU"], rows)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
