"""Claims that one account's trigger, constraint or lock does not stop."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final, Protocol

from refresher.domain.clocks import Chance, Clock
from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed, is_away
from refresher.domain.model import Claim, OpenId
from refresher.domain.parts import parts_of
from refresher.events import ACCOUNT_REFUSED
from refresher.logs import emit

#: An account is skipped for so long, and twice as long each further time; for a shorter time where
#: a lock stands in the way, as that may end any moment.
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 300.0
LONGEST_LOCK_WAIT_SECONDS: Final = 4.0
#: A claim that takes long before it fails keeps others waiting: its account is skipped for so many
#: times as long.
TIMES_AS_LONG: Final = 10
#: At most so many accounts are skipped: if there are more, the accounts are not the reason.
MOST_SKIPPED: Final = 1000
#: At most so many of them are tried again before a claim.
TRIED_AGAIN: Final = 8
#: After so many tries without a failure, because nothing was due, an account is no longer special.
QUIET_TRIES: Final = 30
#: A search that has found nobody to claim ends after so long; the next claim goes on with it.
SEARCH_SECONDS: Final = 1.0

UNLEASED: Final = "its lease was not stored: a trigger suppresses the UPDATE"


class Accounts(Protocol):
    """Leases. Raises `DatabaseUnavailable`."""

    #: Whether the last claim met rows that others had locked.
    skipped_locked: bool
    #: At the last claim: since when everything is paused.
    paused_since: datetime | None
    #: Accounts that the last claim leased, but whose lease a trigger has undone.
    unleased: Sequence[OpenId]

    async def claim(
        self,
        chunk_budget: int,
        *,
        skipped: Sequence[OpenId] = (),
        only: Sequence[OpenId] | None = None,
        tried: Collection[str] | None = None,
    ) -> Sequence[Claim]: ...
    async def claimable(
        self,
        chunk_budget: int,
        skipped: Sequence[OpenId],
        tried: Collection[str] | None = None,
    ) -> Sequence[OpenId]: ...


@dataclass(slots=True)
class _Skipped:
    """An account that cannot be claimed or released just now."""

    #: On the monotonic clock, as `until`.
    since: float
    #: How often it has failed.
    times: int = 0
    #: It is not claimed before; `inf` while it is worked.
    until: float = 0.0
    #: Tries in a row that found nothing due.
    quiet: int = 0


class Claiming:
    """Claims for one replica.

    Where an account's row makes a claim fail, that account is found and skipped for a growing
    time, and the others are claimed. What is leased is handed over before anything waits for a lock
    again, because its slots pass.
    """

    def __init__(self, accounts: Accounts, *, chance: Chance, clock: Clock) -> None:
        self._accounts = accounts
        self._chance = chance
        self._clock = clock
        self._skipped: dict[OpenId, _Skipped] = {}
        self._parts: list[Sequence[OpenId]] = []
        #: Whether more of the skipped accounts are to be tried again at once.
        self.more = False
        #: Whether the last claim left accounts that are due: look again soon.
        self.some_left = False

    @property
    def paused_since(self) -> datetime | None:
        """Since when everything is paused, so that nothing is claimed; None: it is not."""
        return self._accounts.paused_since

    async def claim(
        self, chunk_budget: int, tried: Collection[str] | None = None
    ) -> Sequence[Claim]:
        """Claim some accounts that can be claimed. Where there are any, there may be more."""
        self.more = False
        if tried is not None:  # a trial: whom it asks for goes before
            self._parts.clear()
            return await self._claim(chunk_budget, tried) or await self._claim_again(chunk_budget)
        claims = await self._search(chunk_budget)
        if claims or self._parts:
            return claims
        return await self._claim_again(chunk_budget) or await self._claim(chunk_budget, None)

    def released(self, open_id: OpenId) -> None:
        """Nothing stands in the account's way any more."""
        self._skipped.pop(open_id, None)

    def ended(self, open_id: OpenId) -> None:
        """It is worked no longer, whether it was released or not."""
        skipped = self._skipped.get(open_id)
        if skipped and skipped.until == inf:
            skipped.until = self._clock() + FIRST_WAIT_SECONDS

    def skipped_for(self, seconds: float) -> Collection[OpenId]:
        """The accounts that have been skipped for longer."""
        now = self._clock()
        return [open_id for open_id, one in self._skipped.items() if now - one.since > seconds]

    def skip(
        self, open_id: OpenId, error: Exception | str, at: str, at_least_seconds: float = 0.0
    ) -> bool:
        """Do not claim the account for a while: `error` stands in its way.

        Logs that once until the account is released; says whether it did now.
        """
        skipped = self._skipped.setdefault(open_id, _Skipped(self._clock()))
        is_lock = isinstance(error, DatabaseBusy)
        longest = LONGEST_LOCK_WAIT_SECONDS if is_lock else LONGEST_WAIT_SECONDS
        seconds = min(FIRST_WAIT_SECONDS * (1 << min(skipped.times, 20)), longest)
        seconds = max(seconds * (1 + self._chance()) / 2, at_least_seconds)
        skipped.times += 1
        skipped.quiet = 0
        skipped.until = self._clock() + seconds
        if skipped.times == 1:
            reason = str(error).partition("\n")[0]
            retry = round(seconds, 1)
            emit(ACCOUNT_REFUSED, open_id=open_id, at=at, reason=reason, retry_in_seconds=retry)
        return skipped.times == 1

    async def _claim(self, budget: int, tried: Collection[str] | None) -> list[Claim]:
        skipped = list(self._skipped)
        try:
            claims = list(await self._accounts.claim(budget, skipped=skipped, tried=tried))
        except Exception as error:
            if is_away(error):
                raise
            failure = error  # the lines below find the account that causes it
        else:
            self.some_left = self._accounts.skipped_locked
            self._note_unleased()
            return claims
        await self._check(failure)
        suspects = await self._accounts.claimable(budget, skipped, tried)
        self._parts = parts_of(suspects)
        return await self._search(budget, tried)

    async def _check(self, failure: Exception) -> None:
        """Raises `DatabaseUnavailable` where no account is the reason."""
        if len(self._skipped) >= MOST_SKIPPED:
            raise _as_away(failure) from failure
        try:
            await self._accounts.claim(1, only=())
        except Exception as error:
            raise _as_away(error) from error

    async def _search(self, budget: int, tried: Collection[str] | None = None) -> list[Claim]:
        """Claim the suspects in parts, until those that make it fail stand alone.

        The first part that brings claims ends the search for now: the rest may wait for locks.
        """
        begun = self._clock()
        while self._parts:
            self.some_left = True
            if self._clock() > begun + SEARCH_SECONDS:
                self.more = True
                break
            part = self._parts.pop(0)
            claims = await self._claim_only(part, budget, tried)
            if claims:
                return claims
            if claims is None and len(part) > 1:
                self._parts = parts_of(part) + self._parts
        return []

    async def _claim_again(self, budget: int) -> list[Claim]:
        """Try some skipped accounts, up to the first that brings claims or fails again."""
        now = self._clock()
        again = [open_id for open_id, one in self._skipped.items() if one.until <= now]
        again.sort(key=lambda open_id: self._skipped[open_id].until)
        for number, open_id in enumerate(again[:TRIED_AGAIN], 1):
            skipped = self._skipped[open_id]
            claims = await self._claim_only([open_id], budget)
            if claims:
                skipped.until = inf
                return claims
            if skipped.until > now:  # it failed
                self.more = number < len(again)
                break
            skipped.until = now + FIRST_WAIT_SECONDS
            skipped.quiet += 1
            if skipped.quiet > QUIET_TRIES:
                del self._skipped[open_id]
        return []

    async def _claim_only(
        self, open_ids: Sequence[OpenId], budget: int, tried: Collection[str] | None = None
    ) -> list[Claim] | None:
        """None: it failed. If it was for a single account, that one is skipped."""
        begun = self._clock()
        try:
            claims = list(await self._accounts.claim(budget, only=open_ids, tried=tried))
        except Exception as error:
            if is_away(error):
                self._parts.clear()
                raise
            if len(open_ids) == 1:
                at_least = TIMES_AS_LONG * (self._clock() - begun)
                busy = isinstance(error, DatabaseBusy)
                self.skip(open_ids[0], error, "claim", 0.0 if busy else at_least)
            return None
        self._note_unleased()
        return claims

    def _note_unleased(self) -> None:
        for open_id in self._accounts.unleased:
            self.skip(open_id, UNLEASED, "claim")


def _as_away(error: Exception) -> DatabaseUnavailable:
    if isinstance(error, DatabaseUnavailable) and not isinstance(error, StatementFailed):
        return error
    return DatabaseUnavailable(str(error).partition("\n")[0])
