"""Claims that one account's trigger, constraint or lock does not stop."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable
from refresher.domain.model import Claim, OpenId
from refresher.domain.parts import parts_of
from refresher.events import ACCOUNT_REFUSED
from refresher.logs import emit

#: An account is left alone for so long, twice as long each time; no longer than so where it waits
#: for a lock, which may be let go any moment.
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 300.0
LONGEST_LOCK_WAIT_SECONDS: Final = 4.0
#: So many accounts are left alone at most: beyond that it is no matter of accounts.
MOST_LEFT_ALONE: Final = 1000
#: So many of them are tried again with one claim.
TRIED_AGAIN: Final = 8
#: An account of which nothing was wrong in so many tries, as it had nothing due, is as the others.
QUIET_TRIES: Final = 30
#: A search that has found somebody goes on for no longer: the next claim may find the others.
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
    """An account that cannot be claimed just now."""

    times: int = 0
    until: float = 0.0
    quiet: int = 0


class Claiming:
    """Claims for one replica.

    Where a claim fails for what an account's row makes the database do, that account is found, left
    alone for a growing time, and the others are claimed. `chance` in [0, 1) is the jitter.
    """

    def __init__(self, accounts: Accounts, chance: Callable[[], float]) -> None:
        self._accounts = accounts
        self._chance = chance
        self._left_alone: dict[OpenId, _LeftAlone] = {}
        #: Whether the last claim had to pass by accounts whose rows others held.
        self.passed_by = False

    async def claim(
        self, chunk_budget: int, tried: Collection[str] | None = None
    ) -> Sequence[Claim]:
        """As `Accounts.claim`, for all that can be claimed."""
        claims = await self._claim(chunk_budget, tried)
        now = monotonic()
        again = [open_id for open_id, left in self._left_alone.items() if left.until <= now]
        if again and (budget := chunk_budget - _chunks(claims)) > 0:
            claims += await self._claim_again(budget, again[:TRIED_AGAIN])
        return claims

    def leave_alone(self, open_id: OpenId, error: Exception | str, at: str) -> None:
        """Something stands in the account's way: it is not claimed for a while."""
        left = self._left_alone.setdefault(open_id, _LeftAlone())
        longest = (
            LONGEST_LOCK_WAIT_SECONDS if isinstance(error, DatabaseBusy) else LONGEST_WAIT_SECONDS
        )
        seconds = min(FIRST_WAIT_SECONDS * (1 << min(left.times, 20)), longest)
        seconds *= (1 + self._chance()) / 2
        left.times += 1
        left.quiet = 0
        left.until = monotonic() + seconds
        if left.times == 1:
            reason = str(error).partition("\n")[0]
            retry = round(seconds, 1)
            emit(ACCOUNT_REFUSED, open_id=open_id, at=at, reason=reason, retry_in_seconds=retry)

    async def _claim(self, budget: int, tried: Collection[str] | None) -> list[Claim]:
        left_out = list(self._left_alone)
        try:
            claims = list(await self._accounts.claim(budget, left_out=left_out, tried=tried))
        except DatabaseUnavailable as error:
            if not isinstance(error, DatabaseBusy):
                raise
            failure: Exception = error
        except Exception as error:  # noqa: BLE001 - whose it is is about to be found out
            failure = error
        else:
            self.passed_by = self._accounts.passed_by
            self._note_unleased()
            return claims
        await self._check(failure)
        suspects = await self._accounts.claimable(budget, left_out, tried)
        self.passed_by = True
        return await self._search(suspects, budget, tried)

    async def _check(self, failure: Exception) -> None:
        """Raises `DatabaseUnavailable` where it is no matter of accounts."""
        if len(self._left_alone) >= MOST_LEFT_ALONE:
            raise _as_away(failure) from failure
        try:
            await self._accounts.claim(1, only=())
        except DatabaseUnavailable:
            raise
        except Exception as error:
            raise _as_away(error) from error

    async def _search(
        self, suspects: Sequence[OpenId], budget: int, tried: Collection[str] | None = None
    ) -> list[Claim]:
        """Claim the suspects in parts, until those that spoil it stand alone."""
        claims: list[Claim] = []
        parts, found, begun = parts_of(suspects), False, monotonic()
        while parts and _chunks(claims) < budget:
            if found and monotonic() > begun + SEARCH_SECONDS:
                break
            part = parts.pop(0)
            try:
                left = budget - _chunks(claims)
                claims += await self._accounts.claim(left, only=part, tried=tried)
                self._note_unleased()
            except Exception as error:
                if isinstance(error, DatabaseUnavailable) and not isinstance(error, DatabaseBusy):
                    if claims:
                        break  # what is leased is leased
                    raise
                if len(part) == 1:
                    self.leave_alone(part[0], error, "claim")
                    found = True
                else:
                    parts = parts_of(part) + parts
        return claims

    async def _claim_again(self, budget: int, open_ids: Sequence[OpenId]) -> list[Claim]:
        claims = await self._search(open_ids, budget)
        now = monotonic()
        claimed = {claim.open_id for claim in claims}
        for open_id in open_ids:
            left = self._left_alone[open_id]
            if left.until <= now:  # nothing was wrong
                left.until = now + FIRST_WAIT_SECONDS
                left.quiet += 1
            if open_id in claimed or left.quiet > QUIET_TRIES:
                del self._left_alone[open_id]
        return claims

    def _note_unleased(self) -> None:
        for open_id in self._accounts.unleased:
            self.leave_alone(open_id, UNLEASED, "claim")


def _chunks(claims: Sequence[Claim]) -> int:
    return sum(max(1, claim.chunks) for claim in claims)


def _as_away(error: Exception) -> DatabaseUnavailable:
    if isinstance(error, DatabaseUnavailable):
        return error
    return DatabaseUnavailable(str(error).partition("\n")[0])
