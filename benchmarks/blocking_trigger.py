"""What one locked row costs the others: python -m benchmarks.blocking_trigger.

Accounts with covers that live a minute. An application carries every cover into a table of its own,
by a trigger on refresher.videos, and one of its transactions holds a row of that table for longer
than covers live. Measured each second: how many covers of the other accounts are valid; and how
long after the lock is let go those of the one are.
"""

import argparse
import asyncio
import json
import os
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

import asyncpg
import uvloop

from benchmarks.arguments import parser_of, real, whole
from benchmarks.live import postgres, print_table, print_verdict
from benchmarks.world import module
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.postgres.migrate import migrate

FIRST_ID: Final = 7_000_000_000_000_000_000
COVER_SECONDS: Final = 60
LEAD_SECONDS: Final = 20
HOLDER: Final = "nightly report"
#: How soon the account that waited is fresh again.
SOON_SECONDS: Final = 5.0
START_SECONDS: Final = 60.0

CARRIED: Final = """
CREATE TABLE public.posts (video_id text PRIMARY KEY, cover text);
INSERT INTO public.posts SELECT video_id FROM refresher.videos;
CREATE FUNCTION public.carry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.posts SET cover = NEW.cover_image_url WHERE video_id = NEW.video_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER carry AFTER UPDATE ON refresher.videos
FOR EACH ROW EXECUTE FUNCTION public.carry()
"""
SQL_VALID: Final = """
SELECT count(*) FILTER (WHERE open_id <> $1) AS others, count(*) FILTER (WHERE open_id = $1) AS own
FROM refresher.videos
WHERE cover_image_url IS NOT NULL AND cover_expires_at > now()
"""


@dataclass
class Seen:
    """What came of it."""

    least_of_others: int
    others: int
    seconds_until_fresh: float
    requests: int
    events: list[dict[str, Any]]


def main() -> None:
    options = read_options()
    show(uvloop.run(measure(options)), options)


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.blocking_trigger", __doc__)
    add = parser.add_argument
    add("--accounts", type=whole(2), default=60, help="(default %(default)s)")
    add("--videos", type=whole(), default=20, help="of each (default %(default)s)")
    add("--held", type=real(1), default=70.0, help="seconds (default %(default)s)")
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> Seen:
    async with postgres({}) as server, AsyncExitStack() as stack:
        url = server.url("postgres")
        await migrate(url)
        emulator = Emulator(EmulatorOptions(cover_ttl=COVER_SECONDS))
        base_url = await stack.enter_async_context(emulator.serving())
        looking = await asyncpg.connect(url)
        application = await asyncpg.connect(url, server_settings={"application_name": HOLDER})
        await _add_accounts(looking, emulator, options)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        log = Path(folder) / "log"
        process = await _start(url, base_url, log)
        try:
            seen = await _hold_and_look(looking, application, options)
        finally:
            process.terminate()
            await process.wait()
            await looking.close()
            await application.close()
        seen.requests = len(emulator.record)
        seen.events = [json.loads(line) for line in log.read_text().splitlines()]
        return seen


async def _add_accounts(
    connection: "asyncpg.Connection[asyncpg.Record]",
    emulator: Emulator,
    options: argparse.Namespace,
) -> None:
    for account in range(options.accounts):
        name = f"account-{account}"
        ids = [str(FIRST_ID + 1000 * account + number) for number in range(options.videos)]
        emulator.add_account(name, f"act.{name}")
        for video_id in ids:
            emulator.add_video(name, video_id)
        await connection.execute(
            "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, $2)",
            name,
            f"act.{name}",
        )
        await connection.execute(
            "INSERT INTO refresher.videos (open_id, video_id) SELECT $1, unnest($2::text[])",
            name,
            ids,
        )
    await connection.execute(CARRIED)


async def _start(url: str, base_url: str, log: Path) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "REFRESHER_DATABASE_URL": url,
        "REFRESHER_TIKTOK_BASE_URL": base_url,
        "REFRESHER_LOG_FORMAT": "json",
        "REFRESHER_POLL_SECONDS": "1",
        "REFRESHER_LEAD_SECONDS": str(LEAD_SECONDS),
        "REFRESHER_SPREAD_SECONDS": "0",
    }
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *module("refresher", "run"), env=environment, stdout=output
        )


async def _hold_and_look(
    looking: "asyncpg.Connection[asyncpg.Record]",
    application: "asyncpg.Connection[asyncpg.Record]",
    options: argparse.Namespace,
) -> Seen:
    others = (options.accounts - 1) * options.videos
    begun = monotonic()
    while await _valid(looking) != (others, options.videos):
        if monotonic() > begun + START_SECONDS:
            raise SystemExit("the covers did not become valid")
        await asyncio.sleep(0.1)
    least = others
    async with application.transaction():
        await application.execute(
            "SELECT FROM public.posts WHERE video_id = $1 FOR UPDATE", str(FIRST_ID)
        )
        held = monotonic()
        while monotonic() < held + options.held:
            least = min(least, (await _valid(looking))[0])
            await asyncio.sleep(1)
    freed = monotonic()
    # The database calls nobody.
    while (await _valid(looking))[1] < options.videos and monotonic() < freed + START_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return Seen(least, others, monotonic() - freed, 0, [])


async def _valid(looking: "asyncpg.Connection[asyncpg.Record]") -> tuple[int, int]:
    row = await looking.fetchrow(SQL_VALID, "account-0")
    return (row["others"], row["own"]) if row else (0, 0)


def show(seen: Seen, options: argparse.Namespace) -> None:
    print_table(
        ["held s", "valid covers of others, least", "fresh after s", "requests"],
        [
            [
                f"{options.held:g}",
                f"{seen.least_of_others} of {seen.others}",
                f"{seen.seconds_until_fresh:.1f}",
                str(seen.requests),
            ]
        ],
    )
    blocked = [line for line in seen.events if line["event"] == "chunk.blocked"]
    lost = [line for line in seen.events if line["event"] == "database.lost"]
    print_verdict("the others stay at 100 %", met=seen.least_of_others == seen.others)
    print_verdict(
        f"who holds the lock is said: {[line['holder_application'] for line in blocked]}",
        met=bool(blocked) and all(line["holder_application"] == HOLDER for line in blocked),
    )
    print_verdict(
        f"fresh within {SOON_SECONDS:g} s after", met=seen.seconds_until_fresh <= SOON_SECONDS
    )
    print_verdict(f"database.lost: {len(lost)}", met=not lost)


if __name__ == "__main__":
    main()
