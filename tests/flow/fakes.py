"""An account store and an API in memory. They follow a script and refuse what must not happen."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from refresher.domain.cover_hosts import CoverHosts
from refresher.domain.due import DuePolicy
from refresher.domain.meter import Meter
from refresher.domain.model import Claim, Release, Released, TokenStanding, Video
from refresher.domain.pacing import DatabaseTime
from refresher.flow.loop import Refresher
from refresher.flow.outage import Outage
from refresher.flow.terms import Terms
from refresher.flow.wiring import Outside

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LEASE_SECONDS = 20.0
POLICY = DuePolicy(timedelta(hours=1), timedelta(minutes=30), timedelta(hours=6), 5)


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Account:
    """A stored account. `due`: the video IDs that a claim takes."""

    due: list[str]
    step_seconds: float = 0.0
    epoch: int = 0
    leased_until: float = 0.0
    covers: dict[str, str] = field(default_factory=dict)
    releases: list[Release] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    #: What refuses its rows.
    refuses: Exception | None = None
    #: So many claims in a row have failed.
    failures: int = 0


class Store:
    """The accounts and their leases. `hooks` run before the statement of their name."""

    skipped_locked = False
    paused_since = None
    unleased = ()

    def __init__(self, accounts):
        self.accounts = accounts
        self.hooks = {}
        self.stopped = False
        #: The statements that ran, in order.
        self.done = []

    async def _before(self, name):
        if name in self.hooks:
            await self.hooks[name]()

    async def claim(self, chunk_budget, *, skipped=(), only=None, tried=None):  # noqa: ARG002
        assert not self.stopped, "nothing is claimed after a stop"
        await self._before("claim")
        self.done.append("claim")
        found = [
            self._lease(open_id, account)
            for open_id, account in self.accounts.items()
            if account.due and account.leased_until <= now() and open_id not in skipped
        ]
        return found[:chunk_budget]

    def _lease(self, open_id, account):
        account.epoch += 1
        account.leased_until = now() + LEASE_SECONDS
        videos, account.due = account.due, []
        return Claim(
            open_id=open_id,
            access_token=f"act.{open_id}",
            lease_epoch=account.epoch,
            lease_expires_at=self._time(account.leased_until),
            failures=account.failures,
            videos=[Video(video_id, True, None, 0, False) for video_id in videos],
            first_slot=self._time(now()),
            step_seconds=account.step_seconds,
            time=DatabaseTime(self._time(now()), now()),
            token=TokenStanding(generation=1),
        )

    @staticmethod
    def _time(moment):
        return EPOCH + timedelta(seconds=moment)

    async def claimable(self, budget, skipped, tried=None):  # noqa: ARG002
        return list(self.accounts)

    async def release(self, releases):
        await self._before("release")
        return [self._release(release) for release in releases]

    def _release(self, release):
        account = self.accounts[release.open_id]
        assert release.lease_epoch <= account.epoch, "a lease that was never given"
        if release.lease_epoch < account.epoch:
            return None
        account.releases.append(release)
        account.failures = release.failures
        account.released.set()
        account.leased_until = 0.0
        return Released(parked=False, wake_in_seconds=3600.0, isolated=False)

    release_part = release

    async def release_alone(self, releases, lock_seconds, name):  # noqa: ARG002
        return await self.release(releases)

    async def extend(self, claims, refused):  # noqa: ARG002
        await self._before("extend")
        return [self._extend(claim) for claim in claims]

    def _extend(self, claim):
        account = self.accounts[claim.open_id]
        if claim.lease_epoch != account.epoch:
            return None
        account.leased_until = now() + LEASE_SECONDS
        return LEASE_SECONDS

    async def reserve(self, claim):
        await self._before("reserve")
        return self._time(now() + claim.step_seconds)

    async def tell_answers(self, answers):  # noqa: ARG002
        return False

    async def limit_app(self, wished_seconds, *, shown):  # noqa: ARG002
        return None

    async def write(self, chunks):
        await self._before("write")
        self.done.append("write")
        return [self._write(chunk) for chunk in chunks]

    def _write(self, chunk):
        account = self.accounts[chunk.open_id]
        if chunk.lease_epoch != account.epoch:
            return 0
        if account.refuses:
            raise account.refuses
        for write in chunk.writes:
            account.covers.update(zip(write.video_ids, write.urls, strict=False))
        return chunk.videos

    write_part = write

    async def write_alone(self, chunks, lock_seconds, name):  # noqa: ARG002
        return await self.write(chunks)

    async def holder(self, name):  # noqa: ARG002
        return None


class Api:
    """Answers by a script, request by request; after its end with covers for all."""

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []
        self.asked = asyncio.Event()

    async def query(self, access_token, video_ids, timeout_seconds):  # noqa: ARG002
        self.requests.append((now(), list(video_ids)))
        self.asked.set()
        step = self.script.pop(0) if self.script else None
        if step is not None:
            await step(video_ids)
        return {video_id: cover(video_id) for video_id in video_ids}

    async def renew_token(self, refresh_token, timeout_seconds):  # noqa: ARG002
        raise AssertionError("no token is due")


def cover(video_id):
    return f"https://p16.tiktokcdn.com/{video_id}?x-expires=1800000000&x-signature=s"


def takes(seconds):
    async def step(_):
        await asyncio.sleep(seconds)

    return step


def fails(error):
    async def step(_):
        raise error

    return step


class Run:
    """A daemon's flow in virtual time."""

    def __init__(self, accounts, api, *, grace_seconds=20.0):
        self.store = Store(accounts)
        self.api = api
        self.outage = Outage(lambda: 0.5, now)
        self.meter = Meter()
        self.hosts = CoverHosts()
        outside = Outside(
            accounts=self.store,
            tokens=None,
            write_back=self.store,
            upstream=api,
            outage=self.outage,
            meter=self.meter,
            hosts=self.hosts,
            chance=lambda: 0.5,
            clock=now,
        )
        self.refresher = Refresher(
            outside, Terms(POLICY, 8, 10.0, 5.0, LEASE_SECONDS, grace_seconds)
        )
        self.abandoned = None
        self.stopped_at = self.ended_at = None

    def stop(self):
        self.stopped_at = now()
        self.store.stopped = True
        self.refresher.stop()

    async def _run(self):
        self.abandoned = await self.refresher.run()
        self.ended_at = now()


@asynccontextmanager
async def running(accounts, api, **options):
    """The flow at work. It has stopped at the end."""
    run = Run(accounts, api, **options)
    task = asyncio.create_task(run._run())
    try:
        yield run
    finally:
        run.stopped_at = run.stopped_at or now()
        run.store.stopped = True
        run.refresher.stop()
        await task
