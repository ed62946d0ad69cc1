"""A run with the faults that docs/questions.md asks about, and its log."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from tests.conftest import Daemon, World, environment, eventually
from tests.faults import Server
from tests.proxy import Proxy
from tests.test_isolation import answer_others
from tests.test_lock_waits import carry_covers, held
from tests.test_refused import on_update
from tests.test_tokens import CLIENT, authorize, in_seconds

GOOD = [f"good-{number}" for number in range(10)]
#: `refresher run`, with a summary every two seconds instead of every minute.
RUN = """
from refresher import app
from refresher.cli import main
app.work.__defaults__ = (None, 2.0)
main()
"""
EXPIRED_URL = "https://p16.tiktokcdn.com/cover.image?x-expires=1700000000"
#: What the first replica has met when the first part of the run is over: event, account.
MET_FIRST = {
    ("account.parked", "parked"),
    ("account.parked", "returned"),
    ("account.parked", "scopeless"),
    ("account.throttled", "busy"),
    ("account.throttled", "spent"),
    ("account.isolated", "ill"),
    ("account.refused", "refused"),
    ("chunk.blocked", "locked"),
    ("token.failed", "unrenewable"),
    ("consent.warned", "consenting"),
}


def answer(status: int, code: str, log_id: str) -> web.Response:
    error = {"code": code, "message": "", "log_id": log_id}
    return web.json_response({"data": {}, "error": error}, status=status)


def first_answers(query):
    """What the first part of the run meets at TikTok."""
    match query.open_id:
        case "busy":
            return answer(429, "rate_limit_exceeded", "log-of-busy")
        case "spent":
            return answer(429, "daily_quota_limit_exceeded", "log-of-spent")
        case "ill":
            return answer(500, "internal_error", "log-of-ill")
    return None


def throttles_all(_):
    return answer(429, "rate_limit_exceeded", "log-of-all")


def refuses_renewals(form):
    if form["refresh_token"].startswith("rft.unrenewable"):
        return web.json_response({"error": "server_error", "log_id": "log-of-renewal"}, status=500)
    return None


def now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass
class Run:
    """Replicas, in the order of their start, and when what happened."""

    world: World
    server: Server  # of the database
    folder: Path
    replicas: list[Daemon] = field(default_factory=list)
    #: From when and until when the faults of the night and that of the database were.
    night: tuple[str, str] = ("", "")
    change: tuple[str, str] = ("", "")

    def lines(self) -> list[Mapping[str, object]]:
        """All lines of the log, in order of time."""
        lines = [line for replica in self.replicas for line in replica.lines()]
        return sorted(lines, key=lambda line: str(line["timestamp"]))

    def name(self, replica: int) -> object:
        return self.replicas[replica].lines()[0]["replica"]

    def write(self) -> Path:
        """The log of all replicas, one after the other, with lines of others between them."""
        texts = [replica.output.read_text() for replica in self.replicas]
        log = self.folder / "refresher.log"
        log.write_text("a line of another program\n17\n".join(texts) + '{"cut off')
        return log

    async def start(self, database: str | None = None) -> Daemon:
        output = self.folder / f"replica-{len(self.replicas)}.log"
        settings = {**CLIENT, "tiktok_base_url": self.world.base_url, "poll_seconds": 0.2}
        with output.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", RUN, "run"),
                env=environment(database or self.server.url, **settings),
                stdout=file,
                stderr=file,
            )
        self.replicas.append(Daemon(process, output))
        return self.replicas[-1]

    async def end(self) -> None:
        """The log ends. Idempotent."""
        for replica in self.replicas:
            if replica.process.returncode is None:
                await replica.stopped(signal.SIGKILL)

    async def take_place(self) -> None:
        """All of it, up to the moment at which an operator looks at the log."""
        ids = await self._populate()
        async with (
            Proxy("127.0.0.1", self.server.port) as proxy,
            held(self.server.url, ids["locked"][0]),
        ):
            first = await self.start(self.server.url_of("postgres", proxy.port))
            await self._have_trouble(first)
            await self._limit_the_app(first)
            await self._lose_the_database(first, proxy)
            await self._kill(first)
            second = await self.start()
            await second.until_event("daemon.started")
            assert await second.stopped() == 0
            await self._lose_tiktok()
            await self.end()

    async def _populate(self) -> dict[str, list[str]]:
        world = self.world
        world.emulator.answer_with = first_answers
        world.emulator.answer_token_with = refuses_renewals
        ids = {
            name: await world.add_account(name, videos=20)
            for name in [*GOOD, "parked", "returned", "busy", "spent", "ill", "refused", "locked"]
        }
        await world.add_account("deleting", videos=5)
        await world.add_videos("deleting", 3, missing=True)
        for name in ("parked", "returned"):
            world.emulator.revoke_access_token(name)
        await authorize(world, "scopeless")
        world.emulator.set_scope("scopeless", "user.info.basic")
        await authorize(world, "unrenewable", lives=300)
        await authorize(world, "consenting", consent=86_400 * 2)
        await carry_covers(world)
        await on_update(
            world.pool, "IF OLD.open_id = 'refused' THEN RAISE 'refused is under audit'; END IF;"
        )
        return ids

    async def _have_trouble(self, first: Daemon) -> None:
        """Accounts in trouble of all kinds; one of those that were parked comes back."""
        since = now()
        await first.until_event("freshness.summarized")
        await self.world.pool.execute(
            "UPDATE refresher.videos SET cover_image_url = $1,"
            " cover_expires_at = now() - interval '1 hour' WHERE open_id = 'ill'",
            EXPIRED_URL,
        )

        async def all_met() -> bool:
            await answer_others(self.world)
            met = {(line["event"], line.get("open_id")) for line in first.lines()}
            return met >= MET_FIRST

        await eventually(all_met, "the troubles of the first part")
        self.world.emulator.add_account("returned", "act.new-token-of-returned")
        await self.world.pool.execute(
            "UPDATE refresher.accounts SET access_token = 'act.new-token-of-returned',"
            " access_token_expires_at = $1 WHERE open_id = 'returned'",
            in_seconds(86_400),
        )

        async def returned() -> bool:
            return any(e["open_id"] == "returned" for e in first.events("account.refreshed"))

        await eventually(returned, "the account that was authorized again")
        self.night = since, now()

    async def _limit_the_app(self, first: Daemon) -> None:
        self.world.emulator.answer_with = throttles_all

        async def limited() -> bool:
            await answer_others(self.world)
            return bool(first.events("app.throttled"))

        await eventually(limited, "a limit of the app")
        self.world.emulator.answer_with = first_answers
        await self.world.pool.execute(  # as ten minutes later
            "UPDATE refresher.app SET rate = NULL, rate_lowered_at = '-infinity',"
            " next_slot_at = now()"
        )
        await self.world.pool.execute(
            "UPDATE refresher.accounts SET next_slot_at = now(), wake_at = now()"
            " WHERE open_id LIKE 'good-%' AND lease_expires_at IS NULL"
        )

    async def _lose_the_database(self, first: Daemon, proxy: Proxy) -> None:
        since = now()
        await proxy.refuse()
        proxy.cut()
        await first.until_event("database.lost")
        await proxy.accept()
        await first.until_event("database.recovered")
        self.change = since, now()

    async def _kill(self, first: Daemon) -> None:
        """Killed while it was at work, as its last summary says."""

        async def at_work() -> bool:
            await answer_others(self.world)
            return bool(first.events("freshness.summarized")[-1]["refreshed"])

        await eventually(at_work, "a summary of a replica at work")
        await first.stopped(signal.SIGKILL)

    async def _lose_tiktok(self) -> None:
        """The last replica starts while TikTok is away, and lives, but has nothing to show."""
        self.world.emulator.down = "failed"
        await self.world.pool.execute(
            "UPDATE refresher.accounts SET lease_expires_at = now() WHERE lease_owner IS NOT NULL"
        )
        for name in GOOD:
            await self.world.add_videos(name, 20)
        last = await self.start()
        await last.until_event("upstream.lost")
        await last.until_event("freshness.summarized", 1 + len(last.events("freshness.summarized")))
