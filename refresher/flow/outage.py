"""The database is away: wait until it is back, and log that once."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Final, TypeVar

from refresher.domain.clocks import Chance, Clock
from refresher.domain.errors import DatabaseUnavailable, is_away
from refresher.domain.pacing import NOTICING_SECONDS
from refresher.events import DATABASE_LOST, DATABASE_RECOVERED
from refresher.logs import emit

T = TypeVar("T")

FIRST_WAIT_SECONDS: Final = 0.2
LONGEST_WAIT_SECONDS: Final = 5.0
LATER_ATTEMPT: Final = 2
#: A database that lets no statement through for so long counts as away.
BUSY_SECONDS: Final = 30.0
#: After an outage, by then every replica has found the database again and stored what it held: the
#: longest wait may have begun just when it was noticed that a connection was dead.
SETTLED_SECONDS: Final = NOTICING_SECONDS + LONGEST_WAIT_SECONDS


class Outage:
    """Whether the database is away, as far as this replica knows."""

    def __init__(self, chance: Chance, clock: Clock) -> None:
        self._chance = chance
        self._clock = clock
        self._since: float | None = None
        self._busy_since: float | None = None
        self._over_at = -inf
        #: When the latest answered statement began, in monotonic seconds.
        self.answered_at = -inf

    @property
    def lasts(self) -> bool:
        """The database is away: the last statement failed, or all have met locks for long."""
        return self._since is not None

    @property
    def is_just_over(self) -> bool:
        """Other replicas may still hold what they could not store meanwhile."""
        return self._clock() < self._over_at + SETTLED_SECONDS

    async def attempt(self, unit: Callable[[], Awaitable[T]], *, may_wait: bool = False) -> T:
        """The unit's result. Raises `DatabaseUnavailable`; an outage is logged once.

        `may_wait`: a lock in the way of this statement says nothing about the database.
        """
        started = self._clock()
        try:
            result = await unit()
        except DatabaseUnavailable as error:
            if is_away(error) or not may_wait:
                self._began(error)
            raise
        self._answered(started)
        return result

    async def outlast(
        self,
        unit: Callable[[], Awaitable[T]],
        give_up: asyncio.Event,
        fatal: tuple[type[DatabaseUnavailable], ...] = (),
        *,
        may_wait: bool = False,
    ) -> T:
        """The unit's result; it is tried until there is one. `may_wait` as in `attempt`.

        Raises the `fatal` errors at once, and `DatabaseUnavailable` after `give_up` was set.
        """
        attempt = 0
        while True:
            try:
                return await self.attempt(unit, may_wait=may_wait)
            except DatabaseUnavailable as error:
                if give_up.is_set() or isinstance(error, fatal):
                    raise
            await self.wait(give_up, attempt)
            attempt += 1

    async def wait(self, give_up: asyncio.Event, attempt: int = LATER_ATTEMPT) -> None:
        """Wait before the next attempt, growing and with jitter, at most until `give_up`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(give_up.wait(), self._wait_seconds(attempt))

    def _wait_seconds(self, attempt: int) -> float:
        longest = min(FIRST_WAIT_SECONDS * (1 << min(attempt, 8)), LONGEST_WAIT_SECONDS)
        return longest * (1 + self._chance()) / 2

    def _began(self, error: DatabaseUnavailable) -> None:
        if self._since is None and (is_away(error) or not self._passes()):
            self._since = self._clock()
            emit(DATABASE_LOST, reason=str(error))

    def _passes(self) -> bool:
        """Whether the lock may still end soon."""
        if self._busy_since is None:
            self._busy_since = self._clock()
        return self._clock() < self._busy_since + BUSY_SECONDS

    def _answered(self, started: float) -> None:
        """A statement from before the outage does not show that it is over."""
        self._busy_since = None
        self.answered_at = max(self.answered_at, started)
        if self._since is not None and started >= self._since:
            emit(DATABASE_RECOVERED, away_seconds=round(self._clock() - self._since, 1))
            self._since = None
            self._over_at = self._clock()
