"""How much may be claimed and sent just now: permits for requests, and the work that needs them."""

import asyncio
from collections import deque
from typing import Final

from refresher.domain.pacing import LATEST_SECONDS
from refresher.flow.health import Health
from refresher.flow.under_way import UnderWay

#: Chunks claimed for each request in flight. Most wait for their slot, so that many accounts, each
#: slow under its own limit, together keep all requests busy. Waiting costs little memory.
CHUNKS_PER_REQUEST: Final = 32
#: Chunks claimed and not yet answered, for each request in flight: enough that the next claim comes
#: in time.
CHUNKS_AHEAD: Final = 4
#: The same with those that wait for their write-back. Answers cost memory, and a slow database must
#: slow down the spending of quota.
CHUNKS_UNDER_WAY: Final = 8
#: How long a request is taken to last at first, and how fast the mean follows.
FIRST_GUESS_SECONDS: Final = 0.2
SMOOTHING: Final = 0.1


class Capacity:
    """Permits for `concurrency` requests, fewer while TikTok does not answer."""

    def __init__(self, concurrency: int, health: Health) -> None:
        self._concurrency = concurrency
        self._health = health
        #: Permits that are out and count.
        self._permits = 0
        #: Permits of late requests: others get permits in their place.
        self.uncounted = 0
        #: Requests on their way, late ones too.
        self.sent = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        #: Of all claimed work: chunks to ask for, and the permits that they need at a time.
        self._chunks = 0
        self._demand = 0
        #: The part of the demand that no slot paces: it passes as fast as requests can be made.
        self._unpaced = 0
        #: How long requests take, on average.
        self.query_seconds = FIRST_GUESS_SECONDS
        self.under_way = UnderWay(concurrency * CHUNKS_UNDER_WAY)

    def chunk_budget(self) -> int:
        """How many chunks to claim. What is not claimed is free for other replicas.

        As many as can be sent before their slots are missed; while TikTok is down one at a time,
        and none in between.
        """
        width = self._health.window()
        if self._health.is_down:
            return int(width > self._permits and self._chunks <= self.uncounted)
        ahead = int(width * self._chunks_a_permit()) - (self._demand - self.uncounted)
        to_store = self._concurrency * CHUNKS_UNDER_WAY - self.under_way.chunks
        room = self._concurrency * CHUNKS_PER_REQUEST - self._chunks
        budget = max(0, min(room, ahead, to_store, 2 * self._concurrency))
        # A few are not worth a statement where room for more is about to come.
        return 0 if budget < self._concurrency <= self._unpaced else budget

    def load(self, chunks: int, step_seconds: float) -> "Load":
        """Take on a claim's chunks, `step_seconds` apart; 0: as fast as possible."""
        chunks = max(1, chunks)
        return Load(self, chunks, self._demand_of(chunks, step_seconds), paced=step_seconds > 0)

    def permit(self, load: "Load") -> "Permit":
        """For `async with`: wait for a permit. False: TikTok is down, do not send."""
        return Permit(self, load)

    def lasted(self, seconds: float) -> None:
        """A request was answered after so long."""
        self.query_seconds += (seconds - self.query_seconds) * SMOOTHING

    def limit(self) -> int:
        """How many requests may be in flight just now; 0 or 1 while TikTok is down."""
        return min(self._concurrency, self._health.window())

    @property
    def times_down(self) -> int:
        """How often TikTok has been down so far."""
        return self._health.times_down

    def add(self, *, chunks: int = 0, demand: int = 0, unpaced: int = 0) -> None:
        """For `Load`."""
        self._chunks += chunks
        self._demand += demand
        self._unpaced += unpaced

    def uncount(self) -> None:
        """A permit that is out no longer counts."""
        self.uncounted += 1
        self._permits -= 1

    def count_again(self) -> None:
        """Its request has ended: the permit is about to come back."""
        self.uncounted -= 1
        self._permits += 1

    def refuse_waiting(self) -> None:
        """TikTok is down: who waits for a permit gets none."""
        while self._waiting:
            _settle(self._waiting.popleft(), permitted=False)

    def hand_out(self) -> None:
        """Give permits to those who wait, as far as there are any."""
        while self._waiting and self._has_permit():
            self._permits += _settle(self._waiting.popleft(), permitted=True)

    async def take_permit(self, load: "Load") -> bool:
        """For `Permit`."""
        if self._health.is_down or self._has_permit():
            # What was claimed before the outage is no trial.
            is_old = self._health.is_down and load.times_down < self.times_down
            permitted = self._has_permit() and not is_old
            self._permits += permitted
            return permitted
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.result():
                self.return_permit()
            raise

    def return_permit(self) -> None:
        """For `Permit`."""
        self._permits -= 1
        self.hand_out()

    def _has_permit(self) -> bool:
        return self._permits < self._health.window() and self.sent < self._concurrency

    def _chunks_a_permit(self) -> float:
        """How many chunks one permit can serve, one after the other, before a slot is missed."""
        return min(1 + LATEST_SECONDS / self.query_seconds, CHUNKS_AHEAD)

    def _demand_of(self, chunks: int, step_seconds: float) -> int:
        """How many permits an account takes: one for each chunk, or, paced, those of a flow."""
        if not step_seconds:
            return chunks
        flow = self.query_seconds / step_seconds * self._chunks_a_permit()
        return min(chunks, 1 + int(flow))


class Permit:
    """One request may be in flight. No generator: that takes three times as long."""

    __slots__ = ("_capacity", "_load", "_permitted")

    def __init__(self, capacity: Capacity, load: "Load") -> None:
        self._capacity = capacity
        self._load = load
        self._permitted = False

    async def __aenter__(self) -> bool:
        self._permitted = await self._capacity.take_permit(self._load)
        return self._permitted

    async def __aexit__(self, *_: object) -> None:
        if self._permitted:
            self._capacity.return_permit()


class Load:
    """What is left to ask for of one account's claim."""

    __slots__ = ("_capacity", "_chunks", "_demand", "_paced", "times_down")

    def __init__(self, capacity: Capacity, chunks: int, demand: int, *, paced: bool) -> None:
        self._capacity = capacity
        self._chunks = chunks
        self._demand = demand
        self._paced = paced
        #: How often TikTok had been down when it was claimed.
        self.times_down = capacity.times_down
        capacity.add(chunks=chunks, demand=demand, unpaced=self._unpaced)

    @property
    def _unpaced(self) -> int:
        return 0 if self._paced else self._demand

    def asked(self) -> None:
        """One chunk less. The flow of a paced account stays as it is."""
        if self._chunks:
            self._chunks -= 1
            self._capacity.add(chunks=-1)
        if not self._paced and self._demand:
            self._demand -= 1
            self._capacity.add(demand=-1, unpaced=-1)

    def drop(self) -> None:
        """Nothing more is asked for. Idempotent."""
        self._capacity.add(chunks=-self._chunks, demand=-self._demand, unpaced=-self._unpaced)
        self._chunks = self._demand = 0


def _settle(waiting: "asyncio.Future[bool]", *, permitted: bool) -> bool:
    """Whether somebody was still waiting and now has a permit."""
    if waiting.done():
        return False
    waiting.set_result(permitted)
    return permitted
