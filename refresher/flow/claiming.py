"""Claims that one account's trigger, constraint or lock does not stop."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from refresher.domain.clocks import Chance, Clock
from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed, is_away
from refresher.domain.model import Claim, OpenId
from refresher.domain.parts import parts_of
from refresher.events import ACCOUNT_REFUSED
from refresher.logs import emit

#: An account is left alone for so long, twice as long each time; no longer than so where it waits
#: for a lock, which may be let go any moment.
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 300.0
LONGEST_LOCK_WAIT_SECONDS: Final = 4.0
#: One whose claim takes long before it fails keeps the others waiting for a tenth of the time.
TIMES_AS_LONG: Final = 10
#: So many accounts are left alone at most: beyond that it is no matter of accounts.
MOST_LEFT_ALONE: Final = 1000
#: So many of them are tried again with one claim.
TRIED_AGAIN: Final = 8
#: An account of which nothing was wrong in so many tries, as it had nothing due, is as the others.
QUIET_TRIES: Final = 30
#: A search that has found nobody to claim goes on for no longer: the next claim goes on with it.
SEARCH_SECONDS: Final = 1.0

UNLEASED: Final = "its lease was not stored: a trigger suppresses the UPDATE"


class Accounts(Protocol):
    """Leases. Raises `DatabaseUnavailable`."""

    passed_by: bool
    unleased: Sequence[OpenId]

    async def claim(
        self,
        chunk_budget: int,
        *,
        left_out: Sequence[OpenId] = (),
        only: Sequence[OpenId] | None = None,
        tried: Collection[str] | None = None,
    ) -> Sequence[Claim]: ...
    async def claimable(
        self,
        chunk_budget: int,
        left_out: Sequence[OpenId],
        tried: Collection[str] | None = None,
    ) -> Sequence[OpenId]: ...


@dataclass(slots=True)
class _LeftAlone:
    """An account that cannot be claimed or given back just now; `until` is `inf` while worked."""

    since: float
    times: int = 0
    until: float = 0.0
    quiet: int = 0


class Claiming:
    """Claims for one replica.

    Where a claim fails for what an account's row makes the database do, that account is found, left
    alone for a growing time, and the others are claimed. What is leased is handed over before
    anything may wait for a lock again: its slots pass.
    """

    def __init__(self, accounts: Accounts, *, chance: Chance, clock: Clock) -> None:
        self._accounts = accounts
        self._chance = chance
        self._clock = clock
        self._left_alone: dict[OpenId, _LeftAlone] = {}
        self._parts: list[Sequence[OpenId]] = []
        #: Whether more of those left alone are to be tried again at once.
        self.more = False
        #: Whether the last claim had to pass by accounts whose rows others held.
        self.passed_by = False

    async def claim(
        self, chunk_budget: int, tried: Collection[str] | None = None
    ) -> Sequence[Claim]:
        """As `Accounts.claim`, for some that can be claimed; where there are any, more may be."""
        self.more = False
        if tried is not None:  # a probe: whom it asks for goes before
            self._parts.clear()
            return await self._claim(chunk_budget, tried) or await self._claim_again(chunk_budget)
        claims = await self._search(chunk_budget)
        if claims or self._parts:
            return claims
        return await self._claim_again(chunk_budget) or await self._claim(chunk_budget, None)

    def gave_back(self, open_id: OpenId) -> None:
        """Nothing stands in the account's way any more."""
        self._left_alone.pop(open_id, None)

    def ended(self, open_id: OpenId) -> None:
        """It is worked no longer, whether it was given back or not."""
        left = self._left_alone.get(open_id)
        if left and left.until == inf:
            left.until = self._clock() + FIRST_WAIT_SECONDS

    def left_alone(self, seconds: float) -> Collection[OpenId]:
        """Those that something has stood in the way of for so long."""
        now = self._clock()
        return [open_id for open_id, left in self._left_alone.items() if now - left.since > seconds]

    def leave_alone(
        self, open_id: OpenId, error: Exception | str, at: str, at_least: float = 0.0
    ) -> bool:
        """Something stands in the account's way: it is not claimed for a while.

        For so many seconds `at_least`. Says so once, until it was given back; whether this was it.
        """
        left = self._left_alone.setdefault(open_id, _LeftAlone(self._clock()))
        longest = (
            LONGEST_LOCK_WAIT_SECONDS if isinstance(error, DatabaseBusy) else LONGEST_WAIT_SECONDS
        )
        seconds = min(FIRST_WAIT_SECONDS * (1 << min(left.times, 20)), longest)
        seconds = max(seconds * (1 + self._chance()) / 2, at_least)
        left.times += 1
        left.quiet = 0
        left.until = self._clock() + seconds
        if left.times == 1:
            reason = str(error).partition("\n")[0]
            retry = round(seconds, 1)
            emit(ACCOUNT_REFUSED, open_id=open_id, at=at, reason=reason, retry_in_seconds=retry)
        return left.times == 1

    async def _claim(self, budget: int, tried: Collection[str] | None) -> list[Claim]:
        left_out = list(self._left_alone)
        try:
            claims = list(await self._accounts.claim(budget, left_out=left_out, tried=tried))
        except Exception as error:
            if is_away(error):
                raise
            failure = error  # whose it is is about to be found out
        else:
            self.passed_by = self._accounts.passed_by
            self._note_unleased()
            return claims
        await self._check(failure)
        suspects = await self._accounts.claimable(budget, left_out, tried)
        self._parts = parts_of(suspects)
        return await self._search(budget, tried)

    async def _check(self, failure: Exception) -> None:
        """Raises `DatabaseUnavailable` where it is no matter of accounts."""
        if len(self._left_alone) >= MOST_LEFT_ALONE:
            raise _as_away(failure) from failure
        try:
            await self._accounts.claim(1, only=())
        except Exception as error:
            raise _as_away(error) from error

    async def _search(self, budget: int, tried: Collection[str] | None = None) -> list[Claim]:
        """Claim the suspects in parts, until those that spoil it stand alone.

        The first part that brings claims ends it for now: what is left may wait for locks.
        """
        begun = self._clock()
        while self._parts:
            self.passed_by = True
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
        """Try some that are left alone, up to the first that brings claims or fails again."""
        now = self._clock()
        again = [open_id for open_id, left in self._left_alone.items() if left.until <= now]
        again.sort(key=lambda open_id: self._left_alone[open_id].until)
        for number, open_id in enumerate(again[:TRIED_AGAIN], 1):
            left = self._left_alone[open_id]
            claims = await self._claim_only([open_id], budget)
            if claims:
                left.until = inf
                return claims
            if left.until > now:  # it failed
                self.more = number < len(again)
                break
            left.until = now + FIRST_WAIT_SECONDS
            left.quiet += 1
            if left.quiet > QUIET_TRIES:
                del self._left_alone[open_id]
        return []

    async def _claim_only(
        self, open_ids: Sequence[OpenId], budget: int, tried: Collection[str] | None = None
    ) -> list[Claim] | None:
        """None where it failed; of a single account that is said, and it is left alone."""
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
                self.leave_alone(open_ids[0], error, "claim", 0.0 if busy else at_least)
            return None
        self._note_unleased()
        return claims

    def _note_unleased(self) -> None:
        for open_id in self._accounts.unleased:
            self.leave_alone(open_id, UNLEASED, "claim")


def _as_away(error: Exception) -> DatabaseUnavailable:
    if isinstance(error, DatabaseUnavailable) and not isinstance(error, StatementFailed):
        return error
    return DatabaseUnavailable(str(error).partition("\n")[0])
