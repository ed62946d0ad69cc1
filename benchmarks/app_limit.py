"""How soon a limit of the app that nobody configured is found: python -m benchmarks.app_limit.

Replicas against the emulator, which counts a true sliding window for all tokens together. The
accounts have more due videos than that limit can serve. All that is judged is the emulator's own
record of what arrived when, minute by minute from the first request on; the rate is the one in the
app's row at the end of the minute.

Exits 1 where, from the second minute on, more than a tenth of a minute's requests were refused or
less than 85 % of the limit used, or the rate was not within a tenth of the limit after the first.
With --then the limit is another one from --change-at on: of the minutes after that, in which it has
to be found first, the last one is judged.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Final

import uvloop

from benchmarks.arguments import parser_of, whole
from benchmarks.live import Daemon, daemon, postgres, print_table, print_verdict
from benchmarks.world import FIRST_ID, Server
from refresher.domain.model import CHUNK_SIZE
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.postgres.migrate import migrate

DATABASE: Final = "app_limit"
MINUTE: Final = 60.0
#: Due again after two thirds of it.
COVER_TTL_SECONDS: Final = 60
#: Times what the limit can serve.
WORK: Final = 2.5
LATENCY_SECONDS: Final = 0.05
#: Where nothing is asked for at all, the run has failed.
PATIENCE_SECONDS: Final = 60.0
MOST_REFUSED: Final = 0.10
LEAST_USED: Final = 0.85
FOUND_WITHIN: Final = 0.10

ADD_ACCOUNT: Final = "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, $2)"
ADD_VIDEOS: Final = """
INSERT INTO refresher.videos (open_id, video_id) SELECT $1, unnest($2::text[])
"""
RATE: Final = "SELECT rate FROM refresher.app"


@dataclass(frozen=True, slots=True)
class Minute:
    """What arrived in one minute under this limit, and the rate that was known at its end."""

    limit: int
    sent: int
    refused: int
    rate: float | None

    @property
    def refused_share(self) -> float:
        return self.refused / self.sent if self.sent else 0.0

    @property
    def used(self) -> float:
        """The share of the limit that was answered."""
        return (self.sent - self.refused) / self.limit


def main() -> None:
    options = read_options()
    minutes = uvloop.run(measure(options))
    sys.exit(0 if show(minutes, options.change_at if options.then else len(minutes)) else 1)


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.app_limit", __doc__)
    add = parser.add_argument
    add("--minutes", type=whole(2), default=4, help="(default %(default)s)")
    add("--limit", type=whole(10), default=100, help="true, of the app (default %(default)s)")
    add("--configured", type=whole(0), default=0, help="of the app; 0: none (default %(default)s)")
    add("--then", type=whole(10), help="another true limit, from --change-at on")
    add(
        "--change-at",
        type=whole(2),
        default=3,
        help="minutes from the beginning (default %(default)s)",
    )
    add("--replicas", type=whole(), default=3, help="(default %(default)s)")
    add("--accounts", type=whole(2), default=30, help="(default %(default)s)")
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> Sequence[Minute]:
    emulator = Emulator(
        EmulatorOptions(
            cover_ttl=COVER_TTL_SECONDS,
            rate_limit_per_app=options.limit,
            latency_seconds=LATENCY_SECONDS,
        )
    )
    async with postgres({}) as server, emulator.serving() as base_url:
        await server.copy_database("template0", DATABASE)
        await migrate(server.url(DATABASE))
        async with server.connected(DATABASE) as connection:
            await _add_accounts(connection, emulator, options)
            replicas = ExitStack()
            try:
                for _ in range(options.replicas):
                    replicas.enter_context(_daemon(server, base_url, options))
                return await _watched(connection, emulator, options)
            finally:
                # Aside: they wait for answers of the emulator, which is in this process.
                await asyncio.to_thread(replicas.close)


def _daemon(
    server: Server, base_url: str, options: argparse.Namespace
) -> AbstractContextManager[Daemon]:
    return daemon(
        server.url(DATABASE),
        base_url,
        rate_limit_per_token=600,
        rate_limit_per_app=options.configured,
    )


async def _add_accounts(connection: Any, emulator: Emulator, options: argparse.Namespace) -> None:
    most = max(options.limit, options.then or 0)
    videos = round(WORK * most * CHUNK_SIZE / options.accounts)
    for number in range(options.accounts):
        open_id = f"-000{number:032x}"
        token = f"act.{open_id}"
        emulator.add_account(open_id, token)
        await connection.execute(ADD_ACCOUNT, open_id, token)
        first = FIRST_ID + number * videos
        video_ids = [str(video_id) for video_id in range(first, first + videos)]
        for video_id in video_ids:
            emulator.add_video(open_id, video_id)
        await connection.execute(ADD_VIDEOS, open_id, video_ids)


async def _watched(
    connection: Any, emulator: Emulator, options: argparse.Namespace
) -> Sequence[Minute]:
    end = monotonic() + PATIENCE_SECONDS
    while not emulator.record:
        if monotonic() > end:
            raise SystemExit("no request came")
        await asyncio.sleep(0.1)
    begun = emulator.record[0].at
    minutes = []
    for number in range(options.minutes):
        if options.then and options.change_at == number:
            emulator.options = replace(emulator.options, rate_limit_per_app=options.then)
        first = begun + number * MINUTE
        await asyncio.sleep(first + MINUTE - monotonic())
        codes = [a.error_code for a in emulator.record if first <= a.at < first + MINUTE]
        minutes.append(
            Minute(
                emulator.options.rate_limit_per_app,
                len(codes),
                codes.count("rate_limit_exceeded"),
                await connection.fetchval(RATE),
            )
        )
    return minutes


def show(minutes: Sequence[Minute], change_at: int) -> bool:
    """Print the table and the goals; whether all are met."""
    print_table(
        [
            "minute",
            "limit",
            "sent",
            "refused",
            "refused share",
            "of the limit used",
            "rate in the row",
        ],
        [
            [
                str(number),
                str(minute.limit),
                str(minute.sent),
                str(minute.refused),
                f"{minute.refused_share:.1%}",
                f"{minute.used:.1%}",
                "none" if minute.rate is None else f"{minute.rate:.0f}",
            ]
            for number, minute in enumerate(minutes, 1)
        ],
    )
    steady = [*minutes[1:change_at], minutes[-1]]
    most = max(minute.refused_share for minute in steady)
    least = min(minute.used for minute in steady)
    limit, rate = minutes[0].limit, minutes[0].rate or 0.0
    goals = {
        f"at most {most:.1%} refused from the second minute on": most <= MOST_REFUSED,
        f"at least {least:.1%} of the limit used": least >= LEAST_USED,
        f"{rate:.0f} found after one window": abs(rate - limit) <= FOUND_WITHIN * limit,
    }
    print()
    for what, met in goals.items():
        print_verdict(what, met=met)
    return all(goals.values())


if __name__ == "__main__":
    main()
