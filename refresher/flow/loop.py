"""Claim until stopped, then drain."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.meter import Stats
from refresher.domain.model import Claim, OpenId
from refresher.events import FLEET_PAUSED, FLEET_RESUMED
from refresher.flow.outage import LATER_ATTEMPT
from refresher.flow.room import Room
from refresher.flow.stop import cancelled, wait_for
from refresher.flow.terms import Terms
from refresher.flow.wiring import Outside, connect
from refresher.flow.work import Tally, Work
from refresher.logs import emit

#: Due accounts that a claim has left, as others had locked their rows, are looked for again after
#: so long, then after twice that, and so on.
LOOK_AGAIN_SECONDS: Final = 0.05
LONGEST_LOOK_SECONDS: Final = 1.0
#: After what was heard: of transactions that commit together one notifies, and the others may come
#: a moment later. So the looks that follow cover a third of a second.
LOOKS_AFTER_HEARD: Final = 3
#: What can become of a video that was asked for.
RESULTS: Final = ("refreshed", "unchanged", "missing", "rejected")
#: A bounded run gives up on accounts that have waited for so long, when nothing else is left.
GIVEN_UP_SECONDS: Final = 10.0


class Refresher:
    """Works due accounts until it is stopped."""

    def __init__(self, outside: Outside, terms: Terms) -> None:
        #: Set when it is time to look for due accounts.
        self.wake = asyncio.Event()
        self.tally = Tally()
        #: Since when everything is paused, as the last claim has seen it; None: it is not.
        self.paused_since: datetime | None = None
        self._parts = parts = connect(outside, terms, self.wake)
        self._stop = parts.stop
        self._outage = outside.outage
        self._meter = outside.meter
        self._clock = outside.clock
        self._poll_seconds = terms.poll_seconds
        self._room = Room(parts.capacity, parts.results, outside.outage)
        self._looks = _Looks(self.wake)
        self._working: dict[asyncio.Task[None], Work] = {}
        self._claims_failed = 0
        self._waits_for_room = False

    @property
    def upstream_away_seconds(self) -> float:
        """How long TikTok has been down; 0 while it answers."""
        return self._parts.health.away_seconds()

    def stats(self) -> Stats:
        """How this replica is just now, and what it has done so far."""
        parts, tally = self._parts, self.tally
        return Stats(
            in_flight=parts.capacity.sent,
            in_flight_limit=parts.capacity.limit(),
            unsaved=parts.results.unsaved,
            upstream_up=not parts.health.is_down,
            database_up=not self._outage.lasts,
            asked=tally.ids,
            results={name: getattr(tally, name) for name in RESULTS},
        )

    def hear(self) -> None:
        """Accounts may have become due: look at once, or a moment after the last look."""
        self._looks.heard()

    def given_up(self) -> Collection[OpenId]:
        """Accounts that a lock, a trigger or a constraint has stopped for long."""
        before = self._clock() - GIVEN_UP_SECONDS
        waiting = [work for work in self._working.values() if work.waits_since <= before]
        return {
            *(work.claim.open_id for work in waiting),
            *self._parts.claiming.skipped_for(GIVEN_UP_SECONDS),
        }

    def stop(self) -> None:
        """Send no more; `run` returns when what is in flight is done. Idempotent."""
        self._stop.request()
        self.wake.set()
        for work in self._working.values():
            work.halt.set()

    async def run(self, finished: Callable[[], Awaitable[bool]] | None = None) -> int:
        """Work until stopped, or idle and `finished`; then drain, whatever ended it.

        Accounts that only wait for a lock for long do not count as work.

        Returns the number of accounts still in work at the end of the grace time: their leases run
        out.
        """
        parts = self._parts
        loops = (
            parts.results.run(),
            parts.leases.run(),
            parts.leases.extend(self._working.values),
            parts.app_rate.run(),
        )
        beside = [asyncio.create_task(loop) for loop in loops]
        try:
            await self._work_on(finished)
        finally:
            abandoned = await self._drain()
            await cancelled([*beside, *parts.results.lock_waits, *parts.leases.lock_waits])
        return abandoned

    async def _work_on(self, finished: Callable[[], Awaitable[bool]] | None) -> None:
        while not self._stop.requested.is_set():
            self.wake.clear()
            claimed = await self._claim()
            self._meter.turned("claim", self._clock())
            if claimed:
                continue
            if finished and self._is_idle() and await finished():
                self._stop.waits_over.set()
                return
            with suppress(TimeoutError):
                # Looks again at last, should a tick not come.
                longest = self._parts.health.pause_left() or 2 * self._poll_seconds
                await asyncio.wait_for(self.wake.wait(), longest)

    def _is_idle(self) -> bool:
        before = self._clock() - GIVEN_UP_SECONDS
        return all(work.waits_since <= before for work in self._working.values())

    async def _claim(self) -> bool:
        """Start work on due accounts; says whether to look again at once."""
        budget = self._room.chunks()
        self._waits_for_room = not budget
        if not budget:
            return False
        self._looks.begins()
        claiming, health = self._parts.claiming, self._parts.health
        # While nobody is answered, accounts that were well go first and none has two turns.
        tried = health.tried() if health.is_down else None
        try:
            claims = await self._unless_stopped(
                self._outage.attempt(lambda: claiming.claim(budget, tried))
            )
        except DatabaseUnavailable:
            await self._outage.wait(self._stop.requested, min(self._claims_failed, LATER_ATTEMPT))
            self._claims_failed += 1
            return True
        self._claims_failed = 0
        self._note_pause(claiming.paused_since)
        for claim in claims:
            self._start(claim)
        self._looks.claimed(nobody=not claims, some_left=claiming.some_left)
        if claiming.more:
            self.wake.set()
        return bool(claims)

    def _note_pause(self, since: datetime | None) -> None:
        before, self.paused_since = self.paused_since, since
        if since and not before:
            emit(FLEET_PAUSED, since=since.isoformat())
        if before and not since:
            emit(FLEET_RESUMED, since=before.isoformat())

    async def _unless_stopped(
        self, claiming: Coroutine[None, None, Sequence[Claim]]
    ) -> Sequence[Claim]:
        """The claims; none where the statement hangs and a stop was requested."""
        task = asyncio.ensure_future(claiming)
        stopped = asyncio.ensure_future(self._stop.requested.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            await asyncio.wait({task}, timeout=self._stop.claim_seconds)
        if not task.done():
            task.cancel()
            return ()
        return task.result()

    def _start(self, claim: Claim) -> None:
        self._parts.app_rate.hear_of(claim)
        load = self._parts.capacity.load(claim.chunks, claim.step_seconds)
        work = Work(claim, load, self._clock)
        if self._stop.requested.is_set():
            work.halt.set()
        task = asyncio.create_task(self._work(work))
        self._working[task] = work

        def end(task: asyncio.Task[None]) -> None:
            del self._working[task]
            self._parts.claiming.ended(work.claim.open_id)
            work.load.drop()
            self.wake.set()

        task.add_done_callback(end)

    async def _work(self, work: Work) -> None:
        await self._parts.refresh.run(work, self._made_room)
        self.tally = self.tally.plus(work.tally)

    def _made_room(self) -> None:
        if self._waits_for_room and self._room.chunks():
            self.wake.set()

    async def _drain(self) -> int:
        self.stop()
        working = set(self._working)
        await wait_for(working, self._stop.requests_left_seconds)
        self._parts.gate.cancel_queries()
        self._stop.waits_over.set()
        await wait_for(working, self._stop.left_seconds)
        self._stop.given_up.set()
        late = {task for task in working if not task.done()}
        await cancelled(late)
        return len(late)


class _Looks:
    """Looks for due accounts that a claim has left, or that were heard of: soon, then later."""

    def __init__(self, wake: asyncio.Event) -> None:
        self._wake = wake
        self._times = 0
        self._more = 0  # looks still to come for what was heard
        self._looks = False
        self._looked_at = -LOOK_AGAIN_SECONDS
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """Accounts may have become due. Many calls in a moment cost one look."""
        self._times, self._more = 0, LOOKS_AFTER_HEARD
        if not self._looks:  # else the look under way is followed by another
            self._in(self._looked_at + LOOK_AGAIN_SECONDS - asyncio.get_running_loop().time())

    def begins(self) -> None:
        """Before a claim."""
        self._looks = True

    def claimed(self, *, nobody: bool, some_left: bool) -> None:
        """After a claim. `some_left`: it has left due accounts."""
        self._looks, self._looked_at = False, asyncio.get_running_loop().time()
        if self._timer:
            self._timer.cancel()  # one at a time
        if not nobody or not (some_left or self._more):
            self._times = 0
            return
        self._more = max(0, self._more - 1)
        self._in(min(LOOK_AGAIN_SECONDS * (1 << min(self._times, 8)), LONGEST_LOOK_SECONDS))
        self._times += 1

    def _in(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._wake.set)
