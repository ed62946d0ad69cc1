"""Items of many submitters in few statements."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Final, Generic, TypeVar

from refresher.domain.clocks import Clock
from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed, is_away
from refresher.domain.parts import PARTS, parts_of

HALVES: Final = 2
#: How long the first item of a batch waits for others. A further statement would cost more.
LINGER_SECONDS: Final = 0.05

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects items until they weigh `size` or the first has waited `linger_seconds`.

    `flush` gets a batch and returns one result for each item. When a batch fails, `check` finds out
    whether it is a matter of items at all; what it raises, all submitters of the batch get. Else
    the batch is flushed again in parts, with `flush_part` where a lock is in the way, until the
    items that cannot be stored stand alone. Only their submitters get the error. An error that
    means that the database is away reaches all.

    At most `at_once` flushes run; what comes meanwhile makes the next batch. Each submitter waits
    for its own item, so they bound the memory.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        clock: Clock,
        size: int,
        linger_seconds: float,
        weigh: Callable[[Item], int] = lambda _: 1,
        at_once: int = 1,
        flush_part: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]] | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._flush = flush
        self._flush_part = flush_part or flush
        self._check = check
        self._clock = clock
        self._size = size
        self._linger_seconds = linger_seconds
        self._weigh = weigh
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._weight = 0
        self._free = asyncio.Semaphore(at_once)
        self._flushing_since: list[float] = []
        self._some = asyncio.Event()
        self._full = asyncio.Event()

    async def submit(self, item: Item) -> Result:
        """Hand an item over and wait for its result."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        self._weight += self._weigh(item)
        self._some.set()
        if self._weight >= self._size:
            self._full.set()
        return await done

    def busy_seconds(self) -> float:
        """How long the oldest running flush has taken so far; 0: none runs."""
        return self._clock() - self._flushing_since[0] if self._flushing_since else 0.0

    async def run(self) -> None:
        """Flush batch after batch, until cancelled."""
        async with asyncio.TaskGroup() as flushing:
            while True:
                await self._free.acquire()
                await self._some.wait()
                if not self._full.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._linger_seconds)
                flushing.create_task(self._flush_in_turn(self._take()))

    async def _flush_in_turn(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            await self._flush_batch(batch, self._flush, whole=True)
        finally:
            for _, done in batch:
                done.cancel()  # nobody waits for ever, whatever ended this
            self._free.release()

    def _take(self) -> Sequence[tuple[Item, asyncio.Future[Result]]]:
        taken, weight = 0, 0
        for item, _ in self._waiting:
            if taken and weight + self._weigh(item) > self._size:
                break
            weight += self._weigh(item)
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        self._weight -= weight
        if not self._waiting:
            self._some.clear()
        if self._weight < self._size:
            self._full.clear()
        return batch

    async def _flush_batch(
        self,
        batch: Sequence[tuple[Item, asyncio.Future[Result]]],
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        whole: bool = False,
        timed: bool = True,
    ) -> None:
        try:
            with self._timed() if timed else nullcontext():
                results = await flush([item for item, _ in batch])
            answers = list(zip(batch, results, strict=True))
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait for it
            await self._flush_parts(batch, flush, error, whole=whole, timed=timed)
            return
        for (_, done), result in answers:
            if not done.done():
                done.set_result(result)

    async def _flush_parts(
        self,
        batch: Sequence[tuple[Item, asyncio.Future[Result]]],
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        error: Exception,
        *,
        whole: bool,
        timed: bool,
    ) -> None:
        busy = isinstance(error, DatabaseBusy)
        if not is_away(error):
            failure = await self._failure_of_all() if whole else None
            # A single item is tried again, too: the reason may be over by now.
            if failure is None and (whole or len(batch) > 1):
                flush = self._flush_part if busy else flush
                # A search for a slow row takes long. It must not count as a flush that hangs.
                timed = timed and not isinstance(error, StatementFailed)
                # Each part that fails takes long, too, so there are few rounds.
                waits = isinstance(error, DatabaseUnavailable)
                for part in parts_of(batch, PARTS if waits else HALVES):
                    await self._flush_batch(part, flush, timed=timed)
                return
            error = failure or error
        for _, done in batch:
            if not done.done():
                done.set_exception(error)

    async def _failure_of_all(self) -> Exception | None:
        """What stands in the way of all items."""
        if self._check is None:
            return None
        try:
            with self._timed():
                await self._check()
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            return error
        return None

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """The parts of a batch are timed one by one."""
        started = self._clock()
        self._flushing_since.append(started)
        try:
            yield
        finally:
            self._flushing_since.remove(started)
