"""Leases: lengthened while work lasts, and given back."""

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
from refresher.flow.apart import Apart, Lane
from refresher.flow.batcher import LINGER_SECONDS, Batcher
from refresher.flow.claiming import Claiming
from refresher.flow.flushes import checking, outlasting
from refresher.flow.report import (
    report_blocked_release,
    report_freed_release,
    report_refused_renewal,
    report_stuck_release,
)
from refresher.flow.stop import Stop
from refresher.flow.work import LEASE_MARGIN_SECONDS, Work, wait_for_slot
from refresher.logs import emit

RELEASE_ACCOUNTS: Final = 200
#: An account whose row an application holds locked is given back a little later.
LOCKED_ROW_SECONDS: Final = 0.2
#: By so much later after each so many tries, up to this.
LOCKED_ROW_TRIES: Final = 20
LONGEST_LOCKED_ROW_SECONDS: Final = 1.0
#: After so many tries, ten seconds or so, it is said.
LOCKED_ROW_SAID: Final = 36
#: Leases that were passed by, as a row was locked or others' locks took the time, are looked at
#: again in so long.
RENEW_ON_SECONDS: Final = 1.0
#: Leases are looked at so often in their time, and lengthened where less than half is left.
RENEWALS_PER_LEASE: Final = 4


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
    """Extends the leases of accounts that take long, and gives leases back."""

    def __init__(
        self,
        accounts: Accounts,
        lane: Lane,
        *,
        claiming: Claiming,
        stop: Stop,
        wake: asyncio.Event,
        lease_seconds: float,
        poll_seconds: float,
    ) -> None:
        self._accounts = accounts
        self._claiming = claiming
        self._outage = lane.outage
        self._clock = lane.clock
        self._stop = stop
        self._wake = wake
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        outage, give_up = lane.outage, stop.given_up
        self._release = Batcher(
            outlasting(outage, give_up, accounts.release),
            flush_part=outlasting(outage, give_up, accounts.release_part),
            check=checking(outage, give_up, accounts.release),
            clock=lane.clock,
            size=RELEASE_ACCOUNTS,
            linger_seconds=LINGER_SECONDS,
        )
        self._blocked_releases = Apart(
            accounts.release_alone,
            lane,
            blocked=report_blocked_release,
            freed=report_freed_release,
        )
        #: Accounts whose leases something keeps from being lengthened.
        self._unrenewed: set[OpenId] = set()

    async def run(self) -> None:
        """Release batch after batch, until cancelled."""
        await self._release.run()

    @property
    def lock_waits(self) -> Collection[asyncio.Task[None]]:
        """What waits for locks."""
        return self._blocked_releases.tasks

    async def next_slot(self, work: Work) -> float | None:
        """A further slot of the account, waited for; None where it may not be worked any longer."""
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

    async def give_back(self, work: Work, release: Release) -> Released | None:
        """None where the lease had to be left to run out."""
        for attempt in count():
            try:
                released = await self._hand_in(work, release)
            except Exception as error:  # noqa: BLE001 - whatever refuses it, its lease runs out
                if is_away(error) or isinstance(error, DatabaseBusy):
                    return None
                said = self._claiming.leave_alone(
                    work.claim.open_id,
                    error,
                    "release",
                    at_least=work.lease_end + LEASE_MARGIN_SECONDS - self._clock(),
                )
                work.abandon_quietly = not said
                return None
            if released or self._stop.given_up.is_set() or self._clock() > work.lease_end:
                if released:
                    self._claiming.gave_back(work.claim.open_id)
                    self._unrenewed.discard(work.claim.open_id)
                    self._wake_in(released.wake_in_seconds)
                return released
            work.waits()
            work.held.let_go()
            # Its row is locked, or something suppresses the UPDATE: that may last.
            seconds = LOCKED_ROW_SECONDS * (1 + attempt // LOCKED_ROW_TRIES)
            if attempt == LOCKED_ROW_SAID:
                report_stuck_release(work.claim.open_id, seconds)
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    self._stop.given_up.wait(), min(seconds, LONGEST_LOCKED_ROW_SECONDS)
                )
        raise AssertionError

    async def _hand_in(self, work: Work, release: Release) -> Released | None:
        if not self._blocked_releases.holds(release.open_id):
            with suppress(DatabaseBusy):
                return await self._release.submit(release)
        work.waits()
        work.held.let_go()
        self._wake.set()
        try:
            return await self._blocked_releases.submit(release)
        except Exception as error:
            if is_away(error):
                raise
            # There it is found out whose matter it is.
            return await self._release.submit(release)

    def _wake_in(self, seconds: float) -> None:
        """Later than a poll needs no timer: the poll finds it."""
        if seconds < self._poll_seconds:
            asyncio.get_running_loop().call_later(max(seconds, 0.0), self._wake.set)

    async def keep(self, working: Callable[[], Collection[Work]]) -> None:
        """Lengthen the leases of those in work that take long, until cancelled."""
        seconds = usual = self._lease_seconds / RENEWALS_PER_LEASE
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.given_up.wait(), seconds)
                return
            seconds = usual
            try:
                if not await self._renew(working()):
                    seconds = min(usual, RENEW_ON_SECONDS)
            except DatabaseUnavailable:
                continue  # said already; a lease that has run out meanwhile can still be renewed
            except Exception as error:  # noqa: BLE001 - the next renewal may do
                emit(LOOP_FAILED, loop="renew leases", exc_info=error)

    async def _renew(self, working: Collection[Work]) -> bool:
        """Whether each was lengthened, but for those that something stands in the way of."""
        half = self._lease_seconds / 2 - LEASE_MARGIN_SECONDS
        now = self._clock()
        ending = [work for work in working if work.lease_end - now <= half]
        # Who was refused before comes last, and spoils nobody's renewal.
        refused = [work for work in ending if work.claim.open_id in self._unrenewed]
        await self._renew_these([work for work in ending if work not in refused])
        await self._renew_these(refused)
        return all(
            work.lease_end - now > half or work.claim.open_id in self._unrenewed for work in ending
        )

    async def _renew_these(self, works: Sequence[Work]) -> None:
        if not works:
            return
        now = self._clock()
        claims = [work.claim for work in works]

        def refused(claim: Claim, error: Exception) -> None:
            if claim.open_id not in self._unrenewed:
                report_refused_renewal(claim.open_id, error)
            self._unrenewed.add(claim.open_id)

        renewed = await self._outage.attempt(lambda: self._accounts.extend(claims, refused))
        for work, seconds in zip(works, renewed, strict=True):
            if seconds is not None:
                self._unrenewed.discard(work.claim.open_id)
                work.leased_until(now + seconds)
