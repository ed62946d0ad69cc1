"""THE FLOW of one account: wait for the slot, query, reconcile, write back, release."""

import asyncio
from collections.abc import Callable, Sequence

from refresher.domain.answers import Failure
from refresher.domain.clocks import Chance
from refresher.domain.conclude import conclude
from refresher.domain.errors import TokenUnreadable
from refresher.domain.model import Release, Video
from refresher.events import ACCOUNT_BLOCKED, ACCOUNT_FAILED
from refresher.flow.gate import Gate
from refresher.flow.health import Health
from refresher.flow.leases import Leases
from refresher.flow.report import report
from refresher.flow.results import Results
from refresher.flow.split import Split
from refresher.flow.tokens import TokenRenewal
from refresher.flow.under_way import UnderWay
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
        renewal: TokenRenewal,
        *,
        health: Health,
        under_way: UnderWay,
        chance: Chance,
    ) -> None:
        self._gate = gate
        self._split = split
        self._results = results
        self._leases = leases
        self._renewal = renewal
        self._health = health
        self._under_way = under_way
        self._chance = chance

    async def run(self, work: Work, made_room: Callable[[], None]) -> None:
        """Ask for what was claimed, store what comes, release the account.

        `made_room` is called after each chunk that was asked for. Raises nothing: failures are
        logged.
        """
        release = None
        try:
            if work.claim.token.due:
                release = await self._renew_token(work)
            else:
                await self._ask_in_turn(work, made_room)
        except TokenUnreadable:
            emit(ACCOUNT_BLOCKED, open_id=work.claim.open_id)
            work.fail("token_unreadable")
        except Exception as error:  # noqa: BLE001 - one account's surprise must not stop the others
            emit(ACCOUNT_FAILED, open_id=work.claim.open_id, exc_info=error)
            work.fail("internal_failure")
            work.unsaved = True  # or its wait would not grow where TikTok answers
        release = release or self._conclude(work)
        report(work, release, await self._leases.release(work, release))

    def _conclude(self, work: Work) -> Release:
        return conclude(
            work.claim,
            work.failures,
            self._chance(),
            answered=work.answered,
            unsaved=work.unsaved,
            requests=work.tally.requests,
            samples=work.samples,
            by_itself=work.at_fault and self._health.fails_by_itself(work.claim.open_id),
            nobody_answered=self._health.is_down,
        )

    async def _renew_token(self, work: Work) -> Release | None:
        # Under way: a pair that waits for the database is stored before the next claim.
        with self._under_way:
            return await self._renewal.renew(work)

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
        with self._under_way:
            outcome = await self._gate.query(work, videos, slot)
            if isinstance(outcome, Failure):
                outcome = await self._split.take_apart(work, videos, outcome)
            work.load.asked()
            made_room()
            if outcome:
                await self._results.store(work, outcome)
