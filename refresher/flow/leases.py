"""Leases: extended while work lasts, and released."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from typing import Final, Protocol

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, is_away
from refresher.domain.model import Claim, OpenId, Release, Released
from refresher.domain.pacing import LATEST_SECONDS
from refresher.events import LOOP_FAILED
from refresher.flow.batcher import LINGER_SECONDS, Batcher
from refresher.flow.claiming import Claiming
from refresher.flow.flushes import checking, outlasting
from refresher.flow.lock_waits import LockWaits, Turns
from refresher.flow.report import (
    report_blocked_release,
    report_freed_release,
    report_refused_extension,
    report_stuck_release,
)
from refresher.flow.stop import Stop
from refresher.flow.terms import Terms
from refresher.flow.work import LEASE_MARGIN_SECONDS, Work, wait_for_slot
from refresher.logs import emit

RELEASE_ACCOUNTS: Final = 200
#: An account whose row is locked is released so much later.
LOCKED_ROW_SECONDS: Final = 0.2
#: After each so many tries it waits that much longer, up to the longest.
LOCKED_ROW_TRIES: Final = 20
LONGEST_LOCKED_ROW_SECONDS: Final = 1.0
#: After so many tries, about ten seconds, it is logged.
LOCKED_ROW_SAID: Final = 36
#: A lease that could not be extended, because a row was locked or others' locks took the time, is
#: tried again after so long.
EXTEND_AGAIN_SECONDS: Final = 1.0
#: Leases are looked at so often in their time, and extended where less than half is left.
LOOKS_PER_LEASE: Final = 4


class Accounts(Protocol):
    """Leases. Raises `DatabaseUnavailable`."""

    async def release(self, releases: Sequence[Release]) -> Sequence[Released | None]: ...
    async def release_part(self, releases: Sequence[Release]) -> Sequence[Released | None]: ...
    async def release_alone(
        self, releases: Sequence[Release], lock_seconds: float, name: str
    ) -> Sequence[Released | None]: ...
    async def extend(
        self, claims: Sequence[Claim], refused: Callable[[Claim, Exception], None]
    ) -> Sequence[float | None]: ...
    async def reserve(self, claim: Claim) -> datetime | None: ...


class Leases:
    """Extends the leases of accounts that take long, and releases accounts."""

    def __init__(
        self,
        accounts: Accounts,
        turns: Turns,
        *,
        claiming: Claiming,
        stop: Stop,
        wake: asyncio.Event,
        terms: Terms,
    ) -> None:
        self._accounts = accounts
        self._claiming = claiming
        self._outage = turns.outage
        self._clock = turns.clock
        self._stop = stop
        self._wake = wake
        self._lease_seconds = terms.lease_seconds
        self._poll_seconds = terms.poll_seconds
        outage, give_up = turns.outage, stop.given_up
        self._releases = Batcher(
            outlasting(outage, give_up, accounts.release),
            flush_part=outlasting(outage, give_up, accounts.release_part),
            check=checking(outage, give_up, accounts.release),
            clock=turns.clock,
            size=RELEASE_ACCOUNTS,
            linger_seconds=LINGER_SECONDS,
        )
        self._lock_waits = LockWaits(
            accounts.release_alone,
            turns,
            blocked=report_blocked_release,
            freed=report_freed_release,
        )
        #: Accounts whose lease something keeps from being extended.
        self._unextended: set[OpenId] = set()

    async def run(self) -> None:
        """Release batch after batch, until cancelled."""
        await self._releases.run()

    @property
    def lock_waits(self) -> Collection[asyncio.Task[None]]:
        """What waits for locks."""
        return self._lock_waits.tasks

    async def next_slot(self, work: Work) -> float | None:
        """Wait for a further slot of the account. None: it may not be worked any longer."""
        await wait_for_slot(work, work.next_slot - LATEST_SECONDS)
        if work.halt.is_set():
            return None
        try:
            slot = await self._outage.attempt(lambda: self._accounts.reserve(work.claim))
        except DatabaseUnavailable:
            return None
        if slot is None:
            return None
        moment = work.claim.time.monotonic_of(slot)
        work.next_slot = moment + work.claim.step_seconds
        await wait_for_slot(work, moment)
        return moment

    async def release(self, work: Work, release: Release) -> Released | None:
        """Release the account. None: that was not possible, its lease runs out."""
        for attempt in count():
            try:
                released = await self._store(work, release)
            except Exception as error:  # noqa: BLE001 - whatever refuses it, its lease runs out
                self._leave_to_run_out(work, error)
                return None
            if released:
                self._claiming.released(work.claim.open_id)
                self._unextended.discard(work.claim.open_id)
                self._wake_in(released.wake_in_seconds)
                return released
            if self._stop.given_up.is_set() or self._clock() > work.send_until:
                return None
            await self._wait_for_row(work, attempt)
        raise AssertionError

    async def _store(self, work: Work, release: Release) -> Released | None:
        if not self._lock_waits.has(release.open_id):
            with suppress(DatabaseBusy):
                return await self._releases.submit(release)
        work.waits()
        work.load.drop()
        self._wake.set()
        try:
            return await self._lock_waits.submit(release)
        except Exception as error:
            if is_away(error):
                raise
            # The batcher finds out whether it is the account's fault.
            return await self._releases.submit(release)

    def _leave_to_run_out(self, work: Work, error: Exception) -> None:
        if is_away(error) or isinstance(error, DatabaseBusy):
            return
        lasts_seconds = work.send_until + LEASE_MARGIN_SECONDS - self._clock()
        said = self._claiming.skip(
            work.claim.open_id, error, "release", at_least_seconds=lasts_seconds
        )
        work.abandon_quietly = not said

    async def _wait_for_row(self, work: Work, attempt: int) -> None:
        """Its row is locked, or something suppresses the UPDATE: that may last."""
        work.waits()
        work.load.drop()
        seconds = LOCKED_ROW_SECONDS * (1 + attempt // LOCKED_ROW_TRIES)
        if attempt == LOCKED_ROW_SAID:
            report_stuck_release(work.claim.open_id, seconds)
        with suppress(TimeoutError):
            await asyncio.wait_for(
                self._stop.given_up.wait(), min(seconds, LONGEST_LOCKED_ROW_SECONDS)
            )

    def _wake_in(self, seconds: float) -> None:
        """Later than a poll needs no timer: the poll finds it."""
        if seconds < self._poll_seconds:
            asyncio.get_running_loop().call_later(max(seconds, 0.0), self._wake.set)

    async def extend(self, working: Callable[[], Collection[Work]]) -> None:
        """Extend the leases of those in work that take long, until cancelled."""
        seconds = usual = self._lease_seconds / LOOKS_PER_LEASE
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.given_up.wait(), seconds)
                return
            seconds = usual
            try:
                if not await self._extend_ending(working()):
                    seconds = min(usual, EXTEND_AGAIN_SECONDS)
            except DatabaseUnavailable:
                continue  # logged already; a lease that has run out meanwhile can be extended, too
            except Exception as error:  # noqa: BLE001 - the next try may do
                emit(LOOP_FAILED, loop="renew leases", exc_info=error)

    async def _extend_ending(self, working: Collection[Work]) -> bool:
        """Whether each was extended, except those that a trigger or a constraint refuses."""
        half = self._lease_seconds / 2 - LEASE_MARGIN_SECONDS
        now = self._clock()
        ending = [work for work in working if work.send_until - now <= half]
        # Those that were refused before come last, so that the others do not wait for them.
        refused = [work for work in ending if work.claim.open_id in self._unextended]
        await self._extend([work for work in ending if work not in refused])
        await self._extend(refused)
        return all(
            work.send_until - now > half or work.claim.open_id in self._unextended
            for work in ending
        )

    async def _extend(self, works: Sequence[Work]) -> None:
        if not works:
            return
        now = self._clock()
        claims = [work.claim for work in works]

        def refused(claim: Claim, error: Exception) -> None:
            if claim.open_id not in self._unextended:
                report_refused_extension(claim.open_id, error)
            self._unextended.add(claim.open_id)

        lasting = await self._outage.attempt(lambda: self._accounts.extend(claims, refused))
        for work, seconds in zip(works, lasting, strict=True):
            if seconds is not None:
                self._unextended.discard(work.claim.open_id)
                work.leased_until(now + seconds)
