"""One account in five is bad for good: python -m benchmarks.bad_accounts --kind=forbidden.

A hundred accounts of twenty videos, covers that live a minute, a daemon that asks for them twenty
seconds before they die. All covers are alive at the start and all fall due at once, with twenty
seconds left. Twenty accounts are answered in one bad way, always. For a hundred seconds the others'
covers are counted, and the requests for the bad ones. Exits 1 where a good cover has died, where
the bad ones took more than 400 requests, or where the host was taken to be away.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal

import asyncpg
from aiohttp import web

from benchmarks.arguments import parser_of, whole
from benchmarks.live import print_verdict
from benchmarks.world import module
from refresher.demo import temporary_postgres
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.requests import Query
from refresher.emulator.server import Emulator
from refresher.postgres.migrate import migrate

VIDEOS: Final = 20
COVER_SECONDS: Final = 60
LEAD_SECONDS: Final = 20
#: Until the daemon is up.
START_SECONDS: Final = 6.0
MOST_REQUESTS: Final = 400

ADD_ACCOUNTS: Final = """
INSERT INTO refresher.accounts (open_id, access_token) SELECT * FROM unnest($1::text[], $2::text[])
"""
ADD_VIDEOS: Final = """
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, refreshed_at,
                              due_at)
SELECT *, 'https://example.com/', now() + ($3::float8 + $4::float8) * interval '1 second', now(),
       now() + $3::float8 * interval '1 second'
FROM unnest($1::text[], $2::text[])
"""
#: In the order of the list.
WAKE: Final = """
UPDATE refresher.accounts AS a
SET wake_at = now() + $2::float8 * interval '1 second' + number * interval '1 millisecond'
FROM unnest($1::text[]) WITH ORDINALITY AS given (open_id, number)
WHERE a.open_id = given.open_id
"""
VALID: Final = """
SELECT count(*) FROM refresher.videos
WHERE open_id LIKE 'good-%' AND cover_expires_at > now()
"""
ISOLATED: Final = "SELECT count(*) FROM refresher.accounts WHERE isolated_since IS NOT NULL"

Answer = Callable[[], web.Response | Literal["hang"] | None]


def _json(status: int, body: Mapping[str, object]) -> Answer:
    return lambda: web.json_response(body, status=status)


def _error(status: int, code: str) -> Answer:
    return _json(
        status, {"data": {}, "error": {"code": code, "message": "", "log_id": "202611280"}}
    )


OK: Final = {"code": "ok", "message": "", "log_id": "202611280"}
KINDS: Final[Mapping[str, Answer]] = {
    "forbidden": _error(403, "user_account_restricted"),
    "failed": _error(500, "internal_error"),
    "unknown": _error(200, "something_nobody_has_seen"),
    "null": _json(200, {"data": {"videos": None}, "error": OK}),
    "html": lambda: web.Response(text="<html>Log in</html>", content_type="text/html"),
    "silent": lambda: "hang",
    "none": lambda: None,  # the same fleet with nothing wrong
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the fleet fared."""

    lowest: int
    good: int
    requests_for_bad: int
    requests: int
    isolated: int
    events: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is measured. `settings` are environment variables of the daemon's."""

    kind: str
    order: str = "first"
    accounts: int = 100
    bad: int = 20
    seconds: float = 100.0
    settings: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """In the order in which they fall due."""
        every = self.accounts // self.bad
        is_bad = {
            "first": lambda n: n < self.bad,
            "last": lambda n: n >= self.accounts - self.bad,
            "interleaved": lambda n: n % every == 0,
        }[self.order]
        return [f"{'bad' if is_bad(n) else 'good'}-{n:03}" for n in range(self.accounts)]


async def measure(run: Run) -> Outcome:
    """Work such a fleet for so long."""
    names = run.names()
    emulator = Emulator(EmulatorOptions(cover_ttl=COVER_SECONDS, latency_seconds=0.02))
    answer = KINDS[run.kind]

    def answer_with(query: Query) -> web.Response | Literal["hang"] | None:
        return answer() if (query.open_id or "").startswith("bad-") else None

    emulator.answer_with = answer_with
    with temporary_postgres() as database_url:
        await migrate(database_url)
        pool = await asyncpg.create_pool(database_url, min_size=1, max_size=2)
        try:
            await _add(pool, emulator, names)
            async with (
                emulator.serving() as base_url,
                _daemon(database_url, base_url, run.settings) as output,
            ):
                lowest = await _watch(pool, run.seconds)
            isolated = await pool.fetchval(ISOLATED)
        finally:
            await pool.close()
    asked = Counter((arrival.open_id or "").partition("-")[0] for arrival in emulator.record)
    events = Counter(line["event"] for line in map(json.loads, output.read_text().splitlines()))
    output.unlink()
    good = VIDEOS * (run.accounts - run.bad)
    return Outcome(lowest, good, asked["bad"], asked.total(), isolated, events)


async def _add(pool: Any, emulator: Emulator, names: list[str]) -> None:
    tokens = [f"act.{name}" for name in names]
    videos = [(name, f"7{n:04}{v:014}") for n, name in enumerate(names) for v in range(VIDEOS)]
    for name, token in zip(names, tokens, strict=True):
        emulator.add_account(name, token)
    for name, video in videos:
        emulator.add_video(name, video)
    await pool.execute(ADD_ACCOUNTS, names, tokens)
    await pool.execute(
        ADD_VIDEOS, *map(list, zip(*videos, strict=True)), START_SECONDS, float(LEAD_SECONDS)
    )
    await pool.execute(WAKE, names, START_SECONDS)


@asynccontextmanager
async def _daemon(
    database_url: str, base_url: str, settings: Mapping[str, str]
) -> AsyncIterator[Path]:
    """Its output, complete when the context has ended."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("REFRESHER_")},
        "REFRESHER_DATABASE_URL": database_url,
        "REFRESHER_TIKTOK_BASE_URL": base_url,
        "REFRESHER_LOG_FORMAT": "json",
        "REFRESHER_LEAD_SECONDS": str(LEAD_SECONDS),
        "REFRESHER_SPREAD_SECONDS": "0",
        **settings,
    }
    with tempfile.NamedTemporaryFile(suffix=".log", delete=False) as file:
        process = subprocess.Popen(  # noqa: ASYNC220 - it only starts here
            module("refresher", "run"), env=environment, stdout=file, stderr=file
        )
    try:
        yield Path(file.name)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


async def _watch(pool: Any, seconds: float) -> int:
    """The fewest good covers that were alive at any moment."""
    end, lowest = monotonic() + START_SECONDS + seconds, VIDEOS**9
    while monotonic() < end:
        lowest = min(lowest, await pool.fetchval(VALID))
        await asyncio.sleep(0.2)
    return lowest


def show(name: str, outcome: Outcome) -> bool:
    """The figures; whether all is as it should be."""
    share = outcome.requests_for_bad / max(1, outcome.requests)
    print(
        f"{name}: lowest {outcome.lowest} of {outcome.good} good covers; "
        f"{outcome.requests_for_bad} of {outcome.requests} requests for bad accounts "
        f"({share:.1%}), {outcome.isolated} isolated",
        flush=True,
    )
    lost = outcome.events.get("upstream.lost", 0)
    verdicts = {
        f"{outcome.good} good covers alive all the time": outcome.lowest == outcome.good,
        f"at most {MOST_REQUESTS} requests for the bad": outcome.requests_for_bad <= MOST_REQUESTS,
        "no upstream.lost": not lost,
    }
    for what, met in verdicts.items():
        print_verdict(what, met=met)
    return all(verdicts.values())


def _arguments() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.bad_accounts", __doc__)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--order", choices=["first", "last", "interleaved"], default="first")
    parser.add_argument("--accounts", type=whole(2), default=100)
    parser.add_argument("--bad", type=whole(1), default=20)
    parser.add_argument("--seconds", type=whole(1), default=100)
    parser.add_argument("--set", action="append", default=[], metavar="REFRESHER_NAME=VALUE")
    return parser.parse_args()


def main() -> None:
    given = _arguments()
    settings = dict(pair.split("=", 1) for pair in given.set)
    kinds = [kind for kind in KINDS if kind != "none"] if given.kind == "all" else [given.kind]
    met = True
    for kind in kinds:
        run = Run(
            kind=kind,
            order=given.order,
            accounts=given.accounts,
            bad=given.bad,
            seconds=given.seconds,
            settings=settings,
        )
        met &= show(f"{kind}, bad ones {given.order}", asyncio.run(measure(run)))
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
