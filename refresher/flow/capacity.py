"""How much may be claimed and sent just now: places for requests, and what waits for them."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from refresher.domain.breaker import Breaker
from refresher.domain.clocks import Chance, Clock
from refresher.domain.pacing import LATEST_SECONDS
from refresher.domain.troubles import Troubles
from refresher.events import UPSTREAM_LOST, UPSTREAM_RECOVERED
from refresher.logs import emit

#: Chunks held per request in flight: most wait for their slot, so that many accounts, each slow
#: under its own limit, together keep all requests busy. Waiting costs little memory.
CHUNKS_PER_REQUEST: Final = 32
#: Chunks claimed and not yet answered, per request in flight: so many wait at most, that the next
#: claim is made while they are asked for.
CHUNKS_AHEAD: Final = 4
#: And those waiting for their write-back counted in: answers cost memory, and a slow database must
#: slow down the spending of quota.
CHUNKS_UNDER_WAY: Final = 8
#: Of the time that requests take: what is assumed at first, and how fast the mean follows.
FIRST_GUESS_SECONDS: Final = 0.2
SMOOTHING: Final = 0.1
#: A request without an answer for so long, and for several times as long as the others take, is
#: taken to fail: long before its time-out. What it holds up is then let go.
LATE_SECONDS: Final = 2.0
LATE_TIMES: Final = 5


@dataclass(slots=True, eq=False)
class Sent:
    """A request in flight, for a token where there are no videos.

    `late`: taken to fail; `apart`: it no longer holds up others.
    """

    open_id: str
    videos: Sequence[str]
    at: float
    isolated: bool
    late: bool = False
    apart: bool = False


class Capacity:
    """Places for `concurrency` requests, fewer while the API does not answer.

    `changed` is called where it is time to look again though no request has ended.
    """

    def __init__(
        self, concurrency: int, changed: Callable[[], None], *, chance: Chance, clock: Clock
    ) -> None:
        self._concurrency = concurrency
        self._clock = clock
        self._changed = changed
        self._breaker = Breaker(concurrency, chance)
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._chunks_held = 0
        self._load = 0
        #: The part of the load that is not paced: it passes as fast as requests can be made.
        self._rush = 0
        self._query_seconds = FIRST_GUESS_SECONDS
        #: Of all requests, but by the answers of queries alone; and of token requests alone.
        self._troubles = Troubles()
        self._token_troubles = Troubles()
        #: In flight, the oldest first; how many of them are late, and of these apart.
        self._sent: dict[Sent, None] = {}
        self._late = 0
        self._apart = 0
        #: How often it was open. While it is, only what was claimed since may be sent.
        self._openings = 0
        #: The accounts that failed since the last success.
        self._tried: dict[str, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.under_way = UnderWay(concurrency * CHUNKS_UNDER_WAY)

    def chunk_budget(self) -> int:
        """How many chunks to claim: what is not claimed is free for other replicas.

        As many as the requests in flight can take before slots are missed; while the API is down
        one at a time, and none in between.
        """
        width = self._breaker.window(self._clock())
        if self._breaker.is_open:
            return int(width > self._in_flight and self._chunks_held <= self._apart)
        ahead = int(width * self._patience()) - (self._load - self._apart)
        to_store = self._concurrency * CHUNKS_UNDER_WAY - self.under_way.chunks
        room = self._concurrency * CHUNKS_PER_REQUEST - self._chunks_held
        budget = max(0, min(room, ahead, to_store, 2 * self._concurrency))
        # A few are not worth a statement where room for more is about to come.
        return 0 if budget < self._concurrency <= self._rush else budget

    def pause_left(self) -> float:
        """Seconds until the API may be probed; 0 while it answers."""
        return self._breaker.pause_left(self._clock())

    def away_seconds(self) -> float:
        """How long the API has been down for; 0 while it answers."""
        return self._breaker.open_seconds(self._clock()) if self._breaker.is_open else 0.0

    def hold(self, chunks: int, step_seconds: float) -> "Held":
        """Take a claim's chunks on."""
        return Held(self, max(1, chunks), step_seconds, self._openings)

    def take(self, chunks: int, load: int, rush: int) -> None:
        """For `Held`."""
        self._chunks_held += chunks
        self._load += load
        self._rush += rush

    def place(self, held: "Held") -> "Place":
        """For `async with`: wait for a place among the requests in flight.

        False: the API is down, do not send.
        """
        return Place(self, held)

    def sent(self, open_id: str, videos: Sequence[str], *, isolated: bool) -> Sent:
        """A request goes out now; `ended` follows, and before it, where one came, its outcome."""
        now = self._clock()
        self._breaker.sent(now)
        request = Sent(open_id, videos, now, isolated)
        self._sent[request] = None
        if self._timer is None:
            self._watch(LATE_SECONDS)
        return request

    def ended(self, request: Sent) -> None:
        """It is no longer in flight; its place is given back by who holds it."""
        del self._sent[request]
        self._late -= request.late
        if request.apart:
            self._apart -= 1
            self._in_flight += 1

    def answered(self, request: Sent, *, good: bool) -> None:
        """The API itself has spoken. `good`: with what it was asked for."""
        now = self._clock()
        self._query_seconds += (now - request.at - self._query_seconds) * SMOOTHING
        if self._breaker.succeeded(now):
            self._troubles.forget()
            self._token_troubles.forget()
            emit(UPSTREAM_RECOVERED, away_seconds=round(self._breaker.open_seconds(now), 1))
        if good:
            # Another endpoint: a pair is good for no query.
            troubles = self._troubles if request.videos else self._token_troubles
            troubles.answered(request.open_id, request.videos, now)
        if self._tried:
            self._tried.clear()
        if self._late > self._apart:
            self._set_apart()
        self._give()

    def failed(self, request: Sent, code: str, log_id: str) -> None:
        """No answer, or none from the API itself."""
        if not request.late:
            self._count_failure(request, code, log_id)

    def complained(self, request: Sent) -> None:
        """It brought nothing for a reason that may be the account's own, whoever said so."""
        if not request.late:
            self._note_trouble(request)

    def fails_by_itself(self, open_id: str) -> bool:
        """Whether this account fails while others are answered."""
        return self._troubles.is_own(open_id, self._clock())

    def token_fails_by_itself(self, open_id: str) -> bool:
        """Whether this account's token requests fail, others are answered, and others' are not ill.

        Tokens are refreshed rarely: where nobody else's fails, that will do.
        """
        others_fare_well = self._token_troubles.is_known(open_id) or self._token_troubles.is_alone(
            open_id
        )
        return not self.is_open and others_fare_well and self.fails_by_itself(open_id)

    def suspects(self, open_id: str, videos: Sequence[str]) -> bool:
        """Whether requests that held one of these videos have failed several times in a row.

        While others are answered, of the same account or not.
        """
        return self._troubles.are_suspect(open_id, videos, self._clock())

    def is_mixed(self, open_id: str) -> bool:
        """Whether some of its videos fail while others of it are answered."""
        return self._troubles.is_mixed(open_id)

    @property
    def is_host_well(self) -> bool:
        """Hardly any account has begun to fail lately."""
        return self._troubles.is_host_well(self._clock())

    @property
    def is_open(self) -> bool:
        """Nobody is answered just now, and only probes are sent."""
        return self._breaker.is_open

    def tried(self) -> Collection[str]:
        """The accounts that failed since anybody was answered: others are to be tried first."""
        return tuple(self._tried)

    def _count_failure(self, request: Sent, code: str, log_id: str) -> None:
        was_open = self._breaker.is_open
        news = not (request.isolated or self._troubles.is_known(request.open_id))
        self._tried[request.open_id] = None
        if self._breaker.failed(request.open_id, request.at, self._clock(), news=news):
            emit(UPSTREAM_LOST, code=code, log_id=log_id)
        if self._breaker.is_open and not was_open:
            self._openings += 1
            while self._waiting:
                _settle(self._waiting.popleft(), given=False)

    def _note_trouble(self, request: Sent) -> None:
        now = self._clock()
        self._troubles.failed(request.open_id, request.videos, now)
        if not request.videos:
            self._token_troubles.failed(request.open_id, (), now)

    def _watch(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look_for_late)

    def _look_for_late(self) -> None:
        """What is late counts as failed now: a time-out may come much later."""
        self._timer = None
        late_at = self._clock() - max(LATE_SECONDS, LATE_TIMES * self._query_seconds)
        for request in tuple(self._sent):
            if request.at > late_at:
                self._watch(request.at - late_at)
                break
            if not request.late:
                request.late = True
                self._late += 1
                self._count_failure(request, "timed_out", "")
                self._note_trouble(request)
        self._set_apart()
        self._give()
        if self._late:
            self._changed()

    def _set_apart(self) -> None:
        """What is late holds up nothing where others are answered, or only probes are sent."""
        for request in self._sent:
            passed_by = self._breaker.is_open or request.at < self._breaker.last_success
            if request.late and not request.apart and passed_by:
                request.apart = True
                self._apart += 1
                self._in_flight -= 1

    async def take_place(self, held: "Held") -> bool:
        """For `Place`."""
        if self._breaker.is_open or self._has_place():
            given = self._has_place() and not (self.is_open and held.opening < self._openings)
            self._in_flight += given
            return given
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.result():
                self.leave_place()
            raise

    def leave_place(self) -> None:
        """For `Place`."""
        self._in_flight -= 1
        self._give()

    def _has_place(self) -> bool:
        return (
            self._in_flight < self._breaker.window(self._clock())
            and len(self._sent) < self._concurrency
        )

    def _give(self) -> None:
        while self._waiting and self._has_place():
            self._in_flight += _settle(self._waiting.popleft(), given=True)

    def _patience(self) -> float:
        """How many chunks a place can take, one after the other, before a slot is missed."""
        return min(1 + LATEST_SECONDS / self._query_seconds, CHUNKS_AHEAD)

    def load_of(self, chunks: int, step_seconds: float) -> int:
        """How much of the capacity an account takes: all its chunks at once, or, paced, a flow."""
        if not step_seconds:
            return chunks
        flow = self._query_seconds / step_seconds * self._patience()
        return min(chunks, 1 + int(flow))


class UnderWay:
    """How many chunks are between their slot and their result stored: each is in a `with` of it."""

    __slots__ = ("_apart", "_apart_at_most", "_apart_counted", "chunks")

    def __init__(self, apart_at_most: int) -> None:
        self.chunks = 0
        self._apart = self._apart_counted = 0
        self._apart_at_most = apart_at_most

    @contextmanager
    def apart(self) -> Iterator[None]:
        """In it a chunk is not counted: it waits by itself and must not keep others from going on.

        As far as memory allows: beyond a number it is counted after all.
        """
        if self._apart >= self._apart_at_most:
            self._apart_counted += 1
            try:
                yield
            finally:
                self._apart_counted -= 1
            return
        self._apart += 1
        self.chunks -= 1
        try:
            yield
        finally:
            self._apart -= 1
            self.chunks += 1

    @property
    def together(self) -> int:
        """Chunks that wait for nobody's lock."""
        return self.chunks - self._apart_counted

    def __enter__(self) -> None:
        self.chunks += 1

    def __exit__(self, *_: object) -> None:
        self.chunks -= 1


class Place:
    """A place among the requests in flight. No generator: that takes three times as long."""

    __slots__ = ("_capacity", "_given", "_held")

    def __init__(self, capacity: Capacity, held: "Held") -> None:
        self._capacity = capacity
        self._held = held
        self._given = False

    async def __aenter__(self) -> bool:
        self._given = await self._capacity.take_place(self._held)
        return self._given

    async def __aexit__(self, *_: object) -> None:
        if self._given:
            self._capacity.leave_place()


class Held:
    """A claim's chunks, as far as they are still to be asked for."""

    def __init__(self, capacity: Capacity, chunks: int, step_seconds: float, opening: int) -> None:
        self._capacity = capacity
        #: How often the API had been down when they were claimed.
        self.opening = opening
        self._chunks = chunks
        self._load = capacity.load_of(chunks, step_seconds)
        self._paced = bool(step_seconds)
        capacity.take(chunks, self._load, self._rush)

    @property
    def _rush(self) -> int:
        return 0 if self._paced else self._load

    def asked(self) -> None:
        """One chunk less; of a paced account's flow there is no less."""
        if self._chunks:
            self._chunks -= 1
            self._capacity.take(-1, 0, 0)
        if not self._paced and self._load:
            self._load -= 1
            self._capacity.take(0, -1, -1)

    def let_go(self) -> None:
        """All that is left of them. Idempotent."""
        self._capacity.take(-self._chunks, -self._load, -self._rush)
        self._chunks = self._load = 0


def _settle(waiting: "asyncio.Future[bool]", *, given: bool) -> bool:
    """Whether somebody was still waiting and now has a place."""
    if waiting.done():
        return False
    waiting.set_result(given)
    return given
