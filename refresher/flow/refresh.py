"""THE FLOW of one account: wait for the slot, query, reconcile, write back, release."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from refresher.domain.answers import Failure
from refresher.domain.clocks import Chance
from refresher.domain.conclude import conclude
from refresher.domain.errors import TokenUnreadable
from refresher.domain.model import Release, Video
from refresher.events import ACCOUNT_BLOCKED, ACCOUNT_FAILED
from refresher.flow.capacity import Capacity
from refresher.flow.gate import Gate
from refresher.flow.leases import Leases
from refresher.flow.outage import Outage
from refresher.flow.report import report, report_refused_pair
from refresher.flow.results import Results
from refresher.flow.split import Split
from refresher.flow.stop import Stop
from refresher.flow.tokens import TokenKeeper
from refresher.flow.work import Work, wait_for_slot
from refresher.logs import emit


class AccountRefresh:
    """One account, from its claim to its release."""

    def __init__(
        self,
        gate: Gate,
        split: Split,
        results: Results,
        leases: Leases,
        keeper: TokenKeeper,
        *,
        capacity: Capacity,
        outage: Outage,
        stop: Stop,
        chance: Chance,
    ) -> None:
        self._gate = gate
        self._split = split
        self._results = results
        self._leases = leases
        self._keeper = keeper
        self._capacity = capacity
        self._outage = outage
        self._stop = stop
        self._chance = chance

    async def run(self, work: Work, made_room: Callable[[], None]) -> None:
        """Ask for what was claimed, store what comes, and give the lease back.

        `made_room` hears of each chunk that was asked for. Raises nothing: what fails is said.
        """
        release = None
        try:
            if work.claim.token.due:
                release = await self._keep_token(work)
            else:
                await self._ask_in_turn(work, made_room)
        except TokenUnreadable:
            emit(ACCOUNT_BLOCKED, open_id=work.claim.open_id)
            work.fail("token_unreadable")
        except Exception as error:  # noqa: BLE001 - one account's surprise must not stop the others
            emit(ACCOUNT_FAILED, open_id=work.claim.open_id, exc_info=error)
            work.fail("internal_failure")
        release = release or conclude(
            work.claim,
            work.failures,
            self._chance(),
            answered=work.answered,
            unsaved=work.unsaved,
            requests=work.tally.requests,
            samples=work.samples,
            by_itself=work.at_fault and self._capacity.fails_by_itself(work.claim.open_id),
            nobody_answered=self._capacity.is_open,
        )
        released = await self._leases.give_back(work, release)
        report(work, release, released)

    async def _keep_token(self, work: Work) -> Release | None:
        """None: this is not the time for it."""
        if work.halt.is_set() or self._outage.lasts:
            return None
        # Under way: a pair that waits out an outage is stored before the next claim.
        with self._capacity.under_way:
            ask = partial(self._gate.ask_for_token, work)
            refused = partial(report_refused_pair, work)
            whose = partial(self._gate.whose, work)
            return await self._keeper.keep(work.claim, ask, self._stop.given_up, refused, whose)

    async def _ask_in_turn(self, work: Work, made_room: Callable[[], None]) -> None:
        """Raises `TokenUnreadable`."""
        if not work.claim.token.readable:
            raise TokenUnreadable
        async with asyncio.TaskGroup() as asking:
            for videos, slot in work.chunks():
                await wait_for_slot(work, slot)
                if work.halt.is_set():
                    work.postponed += 1
                else:
                    asking.create_task(self._ask(work, videos, slot, made_room))

    async def _ask(
        self, work: Work, videos: Sequence[Video], slot: float, made_room: Callable[[], None]
    ) -> None:
        """One chunk, from its slot to the result stored."""
        with self._capacity.under_way:
            outcome = await self._gate.query(work, videos, slot)
            if isinstance(outcome, Failure):
                outcome = await self._split.take_apart(work, videos, outcome)
            work.held.asked()
            made_room()
            if outcome:
                await self._results.store(work, outcome)
