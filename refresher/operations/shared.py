"""One reading of the database for all who ask: fifty viewers cost it what one does."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from refresher.domain.clocks import Clock
from refresher.domain.errors import DatabaseUnavailable, is_away
from refresher.events import LOOP_FAILED
from refresher.logs import emit

T = TypeVar("T")

#: For how long after its end a reading is given out before the next one, or for as long as it
#: took: a slow database is not read all the time.
FRESH_SECONDS: Final = 10.0
#: Nobody waits longer for a new reading where there is an old one.
PATIENCE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What was read, and when on the monotonic clock."""

    value: T
    read_at: float


class Shared(Generic[T]):
    """The latest reading. It is read again when somebody asks and it is no longer fresh."""

    def __init__(
        self,
        read: Callable[[], Awaitable[T]],
        clock: Clock,
        *,
        turn: asyncio.Lock | None = None,
        fresh_seconds: float = FRESH_SECONDS,
        first_patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Readings that share `turn` are made one at a time.

        Nobody waits longer than `first_patience_seconds` where there is no reading so far.
        """
        self._read = read
        self._clock = clock
        self._turn = turn or asyncio.Lock()
        self._fresh_seconds = fresh_seconds
        self._first_patience_seconds = first_patience_seconds
        self._latest: Reading[T] | None = None
        self._next_at = float("-inf")
        self._said = False
        self._reading: asyncio.Task[None] | None = None

    async def latest(self) -> Reading[T] | None:
        """The latest reading, however old; None if there is none so far.

        While the database is away or slow, the answer comes after a short wait all the same.
        """
        if self._clock() >= self._next_at and self._reading is None:
            self._reading = asyncio.create_task(self._read_again())
        if self._reading:
            patience = PATIENCE_SECONDS if self._latest else self._first_patience_seconds
            await asyncio.wait({self._reading}, timeout=patience)
        return self._latest

    @property
    def reading(self) -> Reading[T] | None:
        """The latest reading so far, without asking for a newer one."""
        return self._latest

    async def _read_again(self) -> None:
        async with self._turn:
            await self._read_now()

    async def _read_now(self) -> None:
        began = self._clock()
        try:
            self._latest = Reading(await self._read(), began)
        except DatabaseUnavailable as error:
            # Of a database that is away the flow says so; the old reading shows its age.
            if not is_away(error) and not self._said:
                self._said = True
                emit(LOOP_FAILED, loop="operations", exc_info=error)
        except Exception as error:  # noqa: BLE001 - whoever asks gets the old reading
            emit(LOOP_FAILED, loop="operations", exc_info=error)
        else:
            self._said = False
        finally:
            ended = self._clock()
            self._next_at = ended + max(self._fresh_seconds, ended - began)
            self._reading = None
