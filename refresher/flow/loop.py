"""Claim until stopped, then drain. Database and API are passed in."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from refresher.domain.clocks import Chance, Clock
from refresher.domain.due import DuePolicy
from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.model import Claim, OpenId
from refresher.flow.apart import Lane
from refresher.flow.app_rate import Accounts as Rated
from refresher.flow.app_rate import AppRate
from refresher.flow.capacity import Capacity
from refresher.flow.claiming import Accounts as Claimable
from refresher.flow.claiming import Claiming
from refresher.flow.gate import Gate, Upstream
from refresher.flow.leases import Accounts as Leased
from refresher.flow.leases import Leases
from refresher.flow.outage import LATER_ATTEMPT, Outage
from refresher.flow.refresh import AccountRefresh
from refresher.flow.results import Results, WriteBack
from refresher.flow.split import Split
from refresher.flow.stop import Stop, cancelled, wait_for
from refresher.flow.tokens import TokenKeeper
from refresher.flow.work import Tally, Work

#: What somebody held while accounts were claimed is looked at again in so long, then in twice that,
#: and so on.
LOOK_AGAIN_SECONDS: Final = 0.05
LONGEST_LOOK_SECONDS: Final = 1.0
#: A bounded run gives up on what has waited for so long, when nothing else is left.
GIVEN_UP_SECONDS: Final = 10.0


class Accounts(Claimable, Leased, Rated, Protocol):
    """The accounts as they are stored. Raises `DatabaseUnavailable`."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one replica may do, and for how long."""

    policy: DuePolicy
    #: Requests in flight.
    concurrency: int
    request_timeout_seconds: float
    #: How often due accounts are looked for where nothing says so sooner.
    poll_seconds: float
    lease_seconds: float
    #: From a stop until the end of all work.
    grace_seconds: float


class Refresher:
    """Works due accounts until it is stopped."""

    def __init__(
        self,
        accounts: Accounts,
        upstream: Upstream,
        write_back: WriteBack,
        keeper: TokenKeeper,
        *,
        terms: Terms,
        outage: Outage,
        chance: Chance,
        clock: Clock,
    ) -> None:
        self._outage = outage
        self._clock = clock
        self._poll_seconds = terms.poll_seconds
        self.wake = asyncio.Event()
        self._stop = stop = Stop(terms.grace_seconds, clock)
        self._claiming = Claiming(accounts, chance=chance, clock=clock)
        self._capacity = capacity = Capacity(
            terms.concurrency, self.wake.set, chance=chance, clock=clock
        )
        self._app_rate = AppRate(accounts, outage=outage, stop=stop, clock=clock)
        lane = Lane(write_back.holder, outage, stop.waits_over, clock)
        self._results = Results(write_back, lane, capacity=capacity, stop=stop, wake=self.wake)
        self._leases = Leases(
            accounts,
            lane,
            claiming=self._claiming,
            stop=stop,
            wake=self.wake,
            lease_seconds=terms.lease_seconds,
            poll_seconds=terms.poll_seconds,
        )
        self._gate = Gate(
            upstream,
            capacity=capacity,
            app_rate=self._app_rate,
            results=self._results,
            outage=outage,
            policy=terms.policy,
            request_timeout_seconds=terms.request_timeout_seconds,
            clock=clock,
        )
        self._refresh = AccountRefresh(
            self._gate,
            Split(self._gate, self._leases, self._results, capacity=capacity, policy=terms.policy),
            self._results,
            self._leases,
            keeper,
            capacity=capacity,
            outage=outage,
            stop=stop,
            chance=chance,
        )
        self._working: dict[asyncio.Task[None], Work] = {}
        self._write_first = False
        self._claims_failed = 0
        self._waits_for_room = False
        self._looks = 0
        self._look: asyncio.TimerHandle | None = None
        self.tally = Tally()

    @property
    def upstream_away_seconds(self) -> float:
        """How long the API has been down for; 0 while it answers."""
        return self._capacity.away_seconds()

    def given_up(self) -> Collection[OpenId]:
        """Accounts that somebody's lock, trigger or constraint has stopped for long."""
        before = self._clock() - GIVEN_UP_SECONDS
        waiting = [work for work in self._working.values() if work.waits_since <= before]
        return {
            *(work.claim.open_id for work in waiting),
            *self._claiming.left_alone(GIVEN_UP_SECONDS),
        }

    def stop(self) -> None:
        """Send no more; `run` returns when what is in flight is done. Idempotent."""
        self._stop.request()
        self.wake.set()
        for work in self._working.values():
            work.halt.set()

    async def run(self, finished: Callable[[], Awaitable[bool]] | None = None) -> int:
        """Work until stopped, or idle and `finished`; then drain, whatever ended it.

        Who only waits for a lock for long does not keep it from being idle.

        Returns the number of accounts that could not be given back within the grace time: their
        leases run out.
        """
        loops = (
            self._results.run(),
            self._leases.run(),
            self._leases.keep(self._working.values),
            self._app_rate.run(),
        )
        beside = [asyncio.create_task(loop) for loop in loops]
        try:
            await self._work_on(finished)
        finally:
            abandoned = await self._drain()
            await cancelled([*beside, *self._results.lock_waits, *self._leases.lock_waits])
        return abandoned

    async def _work_on(self, finished: Callable[[], Awaitable[bool]] | None) -> None:
        while not self._stop.requested.is_set():
            self.wake.clear()
            if await self._claim():
                continue
            if finished and self._is_idle() and await finished():
                self._stop.waits_over.set()
                return
            with suppress(TimeoutError):
                # The floor under the poll, should a tick not come.
                longest = self._capacity.pause_left() or 2 * self._poll_seconds
                await asyncio.wait_for(self.wake.wait(), longest)

    def _is_idle(self) -> bool:
        before = self._clock() - GIVEN_UP_SECONDS
        return all(work.waits_since <= before for work in self._working.values())

    async def _claim(self) -> bool:
        """Start work on due accounts; says whether to look again at once."""
        budget = self._chunk_budget()
        self._waits_for_room = not budget
        if not budget:
            return False
        # While nobody is answered, accounts that were well go first and none has two turns.
        tried = self._capacity.tried() if self._capacity.is_open else None
        try:
            claims = await self._unless_stopped(
                self._outage.attempt(lambda: self._claiming.claim(budget, tried))
            )
        except DatabaseUnavailable:
            await self._outage.pause(self._stop.requested, min(self._claims_failed, LATER_ATTEMPT))
            self._claims_failed += 1
            return True
        self._claims_failed = 0
        for claim in claims:
            self._start(claim)
        self._look_again(passed_by=self._claiming.passed_by and not claims)
        if self._claiming.more:
            self.wake.set()
        return bool(claims)

    def _look_again(self, *, passed_by: bool) -> None:
        """Soon, where others held the rows of accounts that are due; later while they hold them."""
        if self._look:
            self._look.cancel()  # one at a time
        if not passed_by:
            self._looks = 0
            return
        seconds = min(LOOK_AGAIN_SECONDS * (1 << min(self._looks, 8)), LONGEST_LOOK_SECONDS)
        self._looks += 1
        self._look = asyncio.get_running_loop().call_later(seconds, self.wake.set)

    async def _unless_stopped(
        self, claiming: Coroutine[None, None, Sequence[Claim]]
    ) -> Sequence[Claim]:
        """The claims; a statement that hangs is left alone a little after `stop`."""
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

    def _chunk_budget(self) -> int:
        """Results that waited out an outage are all written before a claim moves the epoch."""
        if self._results.stalls():
            return 0
        if not self._capacity.under_way.together:
            self._write_first = False
        elif self._outage.lasts:
            self._write_first = True
        return 0 if self._write_first else self._capacity.chunk_budget()

    def _start(self, claim: Claim) -> None:
        self._app_rate.learn_of(claim)
        work = Work(claim, self._capacity.hold(claim.chunks, claim.step_seconds), self._clock)
        if self._stop.requested.is_set():
            work.halt.set()
        task = asyncio.create_task(self._work(work))
        self._working[task] = work

        def end(task: asyncio.Task[None]) -> None:
            del self._working[task]
            self._claiming.ended(work.claim.open_id)
            work.held.let_go()
            self.wake.set()

        task.add_done_callback(end)

    async def _work(self, work: Work) -> None:
        await self._refresh.run(work, self._made_room)
        self.tally = self.tally.plus(work.tally)

    def _made_room(self) -> None:
        if self._waits_for_room and self._chunk_budget():
            self.wake.set()

    async def _drain(self) -> int:
        self.stop()
        working = set(self._working)
        await wait_for(working, self._stop.requests_left_seconds)
        self._gate.cancel_queries()
        self._stop.waits_over.set()
        await wait_for(working, self._stop.left_seconds)
        self._stop.given_up.set()
        late = {task for task in working if not task.done()}
        await cancelled(late)
        return len(late)
