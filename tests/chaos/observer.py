"""Watches the world and checks the invariants."""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import aiohttp

from refresher.emulator.record import token_digest
from tests.chaos import invariants
from tests.chaos.invariants import Parked, StoredAccount, StoredVideo, TokenRequested
from tests.chaos.replicas import BREATH_SECONDS, Replica
from tests.chaos.stage import Stage

LOOK_SECONDS = 0.5
LIVEZ_SECONDS = 2.0
#: If our own loop is later than this, the time of arrival of a request is not known.
LATE_SECONDS = 0.25

#: What may keep a replica from the answer to a statement, or from logging it.
DISTURBANCES = {"killed", "stopped", "away", "cut", "frozen", "refused"}

SQL_VIDEOS = """
SELECT open_id, video_id, cover_image_url AS url, cover_expires_at AS expires_at, due_at, misses,
       refusal
FROM refresher.videos
"""
SQL_ACCOUNTS = """
SELECT open_id, state, state_reason, access_token, refresh_token FROM refresher.accounts
"""


class Observer:
    """Reports violations to the world."""

    def __init__(self, world: Stage) -> None:
        self.world = world
        self.events: list[dict[str, object]] = []
        self._read: dict[Path, int] = {}
        self._late: list[tuple[float, float]] = []

    async def watch(self, stop: asyncio.Event) -> None:
        """Look every half a second until `stop`."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIVEZ_SECONDS)) as session,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._measure(stop))
            for replica in self.world.replicas:
                group.create_task(self._ask_livez(session, replica.name, stop))
            while not stop.is_set():
                await self.look()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), LOOK_SECONDS)

    async def look(self) -> None:
        """Check what must hold at any moment."""
        self._read_logs()
        self._judge_requests()
        self._say("3 covers", await self._breaches())
        videos = await self.videos()
        if videos is not None:
            self._say("3 covers", invariants.bad_covers(videos, self.world.emulator.handed_out))

    async def unsettled(self) -> list[tuple[str, str]]:
        """What does not hold yet. In quiet times it must hold after a while."""
        videos, accounts = await self.videos(), await self.accounts()
        if videos is None or accounts is None:
            return [("4 freshness", "the database does not answer")]
        emulator, journal = self.world.emulator, self.world.journal
        requests = self.token_requests()
        present = {
            account.open_id: emulator.videos_of(account.open_id)
            for account in accounts
            if account.state == "active"
        }
        now = datetime.now(UTC)
        found = (
            ("2 tokens", invariants.lost_unsaid(accounts, requests, journal, monotonic())),
            ("2 tokens", invariants.unsealed(accounts)),
            ("4 freshness", invariants.parked_wrongly(accounts, requests, journal)),
            ("4 freshness", invariants.not_valid(videos, present, emulator.not_served, now)),
        )
        return [(invariant, what) for invariant, breaches in found for what in breaches]

    async def at_the_end(self) -> None:
        """After the end of all replicas: check what they left behind, and their logs."""
        await self._judge_parks()
        self._judge_recoveries()
        self._judge_losses()
        left = await self.world.fetch(
            "SELECT open_id FROM refresher.accounts WHERE lease_expires_at > now()"
        )
        self._say("5 process", [f"{row['open_id']}: a lease is left behind" for row in left or ()])
        for replica in self.world.replicas:
            for output in replica.outputs:
                text = invariants.complete_lines(output.read_text())
                self._say("6 logs", invariants.bad_lines(output.name, text))

    async def _judge_parks(self) -> None:
        rows = await self.world.fetch("SELECT at, open_id, state, reason FROM chaos.parks")
        parks = [Parked(row["at"].timestamp(), *list(row)[1:]) for row in rows or ()]
        said = [
            Parked(
                _unix_time(event),
                str(event["open_id"]),
                str(event["state"]),
                str(event["reason"]),
            )
            for event in self.events
            if event["event"] == "account.parked"
        ]
        self._say("2 tokens", invariants.parked_unsaid(parks, said, self._disturbed))

    def _judge_recoveries(self) -> None:
        said = [
            (_unix_time(event) - time.time() + monotonic(), str(event["output"]))
            for event in self.events
            if event["event"] == "database.recovered"
        ]
        self._say("6 logs", invariants.recovered_early(said, self.world.journal))

    def _judge_losses(self) -> None:
        said = [
            (_unix_time(event) - time.time() + monotonic(), str(event["output"]))
            for event in self.events
            if event["event"] == "upstream.lost"
        ]
        self._say("7 isolation", invariants.lost_wrongly(said, self.world.journal))

    def _disturbed(self, at: float) -> bool:
        """Whether a fault hit a process or a connection at about this Unix time."""
        moment = at - time.time() + monotonic()
        subjects = ["database", *(replica.name for replica in self.world.replicas)]
        return any(
            self.world.journal.happened(DISTURBANCES, subject, moment - 1, moment + 1)
            for subject in subjects
        )

    async def videos(self) -> list[StoredVideo] | None:
        rows = await self.world.fetch(SQL_VIDEOS)
        return None if rows is None else [StoredVideo(**row) for row in rows]

    async def accounts(self) -> list[StoredAccount] | None:
        rows = await self.world.fetch(SQL_ACCOUNTS)
        return None if rows is None else [self._account(row) for row in rows]

    def token_requests(self) -> list[TokenRequested]:
        ports = self.world.ports
        return [
            TokenRequested(request.arrival, ports[request.port].name)
            for request in self.world.emulator.token_requests
        ]

    def count(self, name: str) -> int:
        return sum(event["event"] == name for event in self.events)

    def total(self, name: str, field: str) -> int:
        return sum(int(str(e[field])) for e in self.events if e["event"] == name)

    def _account(self, row) -> StoredAccount:
        unseal = self.world.sealer.unseal
        token = unseal(row["refresh_token"])
        sealed = all(row[name] != unseal(row[name]) for name in ("access_token", "refresh_token"))
        lives = self.world.emulator.holds_refresh_token(row["open_id"], token or "")
        digest = token_digest(token) if token else None
        return StoredAccount(
            row["open_id"], row["state"], row["state_reason"], digest, lives, sealed
        )

    def _judge_requests(self) -> None:
        for account, moments in invariants.by_account(self._arrivals()).items():
            self._say("1 limit", invariants.over_limit(account, moments, self.world.rate_limit))
            for calm in self._calm(moments):
                self._say("1 limit", invariants.too_close(account, calm, self.world.rate_limit))
        lost = {str(event["open_id"]) for event in self.events if event["event"] == "token.lost"}
        self._say(
            "2 tokens", invariants.used_twice(self.token_requests(), self.world.journal, lost)
        )

    def _arrivals(self) -> Iterator[tuple[float, str | None]]:
        """Moments by account. Videos tell the account, because a dead token tells none."""
        for arrival in self.world.emulator.record:
            yield arrival.at, self.world.owners.get((arrival.video_ids or ("",))[0])

    def _calm(self, moments: list[float]) -> Iterator[list[float]]:
        """The moments, except where our loop was late or a stopped process went on."""
        blurred = [
            *self._late,
            *((e.ended - BREATH_SECONDS, e.ended) for e in self.world.journal.of("stopped")),
        ]
        part: list[float] = []
        for moment in moments:
            if any(begin <= moment <= end for begin, end in blurred):
                yield part
                part = []
            else:
                part.append(moment)
        yield part

    async def _breaches(self) -> list[str]:
        rows = await self.world.fetch("SELECT breach FROM chaos.breaches ORDER BY number")
        return [row["breach"] for row in rows or ()]

    async def _ask_livez(
        self, session: aiohttp.ClientSession, name: str, stop: asyncio.Event
    ) -> None:
        replica = next(replica for replica in self.world.replicas if replica.name == name)
        while not stop.is_set():
            is_alive = False
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.get(self.world.livez_urls[name]) as response:
                    is_alive = response.status == 200
            replica.answered(is_alive=is_alive)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)

    async def _measure(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            before = monotonic()
            await asyncio.sleep(0.1)
            if (now := monotonic()) > before + 0.1 + LATE_SECONDS:
                self._late.append((before, now))

    def _read_logs(self) -> None:
        for replica in self.world.replicas:
            for output in replica.outputs:
                self.events += self._new_events(replica, output)
        for event in self.events:
            if event["event"] in invariants.FORBIDDEN:
                self._say("6 logs", [json.dumps(event)[:1500]])

    def _new_events(self, replica: Replica, output: Path) -> Iterator[dict[str, object]]:
        with output.open("rb") as file:
            file.seek(self._read.get(output, 0))
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read[output] = self._read.get(output, 0) + len(text)
        for line in text.decode().splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    told = datetime.fromisoformat(event["timestamp"]).timestamp()
                    at = replica.real_time(told, time.time())
                    yield {**event, "output": output.name, "at": at}

    def _say(self, invariant: str, breaches: Iterable[str]) -> None:
        for breach in breaches:
            self.world.violated(invariant, breach)


def _unix_time(event: Mapping[str, object]) -> float:
    return float(str(event["at"]))
