"""Many small hand-overs, few statements."""

import asyncio
from contextlib import asynccontextmanager, suppress
from time import monotonic

import pytest

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable, StatementFailed
from refresher.flow.batcher import Batcher

FOR_EVER = 3600.0
SOON = 0.001
PATIENCE_SECONDS = 30


class Flush:
    """Answers ten times each item; remembers the batches; waits where it is told to."""

    def __init__(self):
        self.batches = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.running = 0
        self.error = ValueError("thirteen")

    async def __call__(self, items):
        assert self.running == 0, "two flushes at a time"
        self.running += 1
        self.batches.append(list(items))
        self.begun.set()
        await self.go_on.wait()
        self.running -= 1
        if 13 in items:
            raise self.error
        return [10 * item for item in items]


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def running(flush, **options):
    batcher = Batcher(
        flush, **{"clock": monotonic, "size": 3, "linger_seconds": FOR_EVER, **options}
    )
    task = asyncio.create_task(batcher.run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield batcher
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def submitted(batcher, *items):
    """Tasks that have all handed over their items."""
    tasks = [asyncio.create_task(batcher.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_a_full_batch_does_not_linger():
    """As soon as the size is reached, the items go out together, in order."""
    flush = Flush()
    async with running(flush) as batcher:
        await asyncio.gather(*await submitted(batcher, 1, 2, 3))
    assert flush.batches == [[1, 2, 3]]


async def test_a_batch_that_is_not_full_goes_out_after_a_while():
    """One item does not wait for others for ever."""
    flush = Flush()
    async with running(flush, linger_seconds=SOON) as batcher:
        assert await batcher.submit(1) == 10
        assert await batcher.submit(2) == 20
    assert flush.batches == [[1], [2]]


async def test_a_full_batch_leaves_the_next_one_to_linger():
    """After a batch that was full, a single item waits for others again."""
    flush = Flush()
    async with running(flush) as batcher:
        await asyncio.gather(*await submitted(batcher, 1, 2, 3))
        early = await submitted(batcher, 4)
        for _ in range(10):  # turns of the loop, in which a flush would begin
            await asyncio.sleep(0)
        await asyncio.gather(*early, *await submitted(batcher, 5, 6))
    assert flush.batches == [[1, 2, 3], [4, 5, 6]]


async def test_each_submitter_gets_its_own_result():
    """Results find their way back through several batches."""
    flush = Flush()
    async with running(flush, linger_seconds=SOON) as batcher:
        results = await asyncio.gather(*(batcher.submit(item) for item in range(10)))
    assert results == [10 * item for item in range(10)]
    assert [len(batch) for batch in flush.batches] == [3, 3, 3, 1]


async def test_one_flush_at_a_time():
    """What comes during a flush waits for it and makes the next batches."""
    flush = Flush()
    async with running(flush, linger_seconds=SOON) as batcher:
        flush.go_on.clear()
        first = await submitted(batcher, 1)
        await flush.begun.wait()
        later = await submitted(batcher, 2, 3, 4, 5)
        assert flush.batches == [[1]]
        flush.go_on.set()
        await asyncio.gather(*first, *later)
    assert flush.batches == [[1], [2, 3, 4], [5]]


async def test_an_item_that_fails_costs_the_others_nothing():
    """A batch that fails is tried in halves, until what fails stands alone; only it hears of it."""
    flush = Flush()
    async with running(flush, size=6) as batcher:
        tasks = await submitted(batcher, 11, 12, 13, 14, 15, 16)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result for result in results if isinstance(result, int)] == [110, 120, 140, 150, 160]
    assert isinstance(results[2], ValueError)
    assert flush.batches[1:] == [[11, 12, 13], [11], [12, 13], [12], [13], [14, 15, 16]]


async def test_a_database_that_is_away_is_not_asked_in_parts():
    """It would be away for the halves as well: all who were in that batch hear of it."""
    flush = Flush()
    flush.error = DatabaseUnavailable("gone")
    async with running(flush) as batcher:
        tasks = await submitted(batcher, 12, 13, 14, 15, 16, 17)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == 3 * [DatabaseUnavailable] + 3 * [int]
    assert flush.batches == [[12, 13, 14], [15, 16, 17]]


async def test_a_batch_that_meets_a_lock_is_split_into_eighths():
    """By the patient flush, after a look whether it is a matter of items; one alone hears of it."""
    flush, parts = Flush(), Flush()
    flush.error = parts.error = DatabaseBusy("lock timeout")
    looks = []

    async def check():
        looks.append(len(parts.batches))

    async with running(flush, size=16, flush_part=parts, check=check) as batcher:
        tasks = await submitted(batcher, *range(16))
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[13], DatabaseBusy)
    assert [result for result in results if result is not results[13]] == [
        10 * item for item in range(16) if item != 13
    ]
    assert looks == [0]
    assert flush.batches == [list(range(16))]
    assert parts.batches == [
        *([item, item + 1] for item in range(0, 14, 2)),
        *([12], [13]),
        [14, 15],
    ]


@pytest.mark.parametrize("items", [(13,), (12, 13, 14)], ids=["one", "some"])
@pytest.mark.parametrize(
    "error", [DatabaseBusy("lock"), StatementFailed("slow"), ValueError("thirteen")], ids=repr
)
async def test_what_is_no_matter_of_items_is_not_split(items, error):
    """The look itself fails, in the end: all who were in that batch hear why."""
    flush = Flush()
    flush.error = error

    async def check():
        raise DatabaseUnavailable("the table is locked")

    async with running(flush, size=len(items), check=check) as batcher:
        tasks = await submitted(batcher, *items)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {str(result) for result in results} == {"the table is locked"}
    assert flush.batches == [list(items)]


async def test_one_alone_is_tried_again_after_the_check():
    """What failed it may have been the database's, and over when that was checked."""
    flush = Flush()
    flush.error = StatementFailed("no such table")

    async def check():
        flush.error = StatementFailed("its own")

    async with running(flush, size=1, check=check) as batcher:
        (task,) = await submitted(batcher, 13)
        with pytest.raises(StatementFailed, match="its own"):
            await task
    assert flush.batches == [[13], [13]]


async def test_others_go_on_while_a_slow_item_is_looked_for():
    """The parts of a batch that was too slow are no flush that hangs."""
    flush = Stuck()

    async def fail_together(items):
        if len(items) > 1:
            raise StatementFailed("no answer in time")
        return await flush(items)

    clock = Clock()
    async with running(fail_together, clock=clock, size=2) as batcher:
        first, second = await submitted(batcher, 1, 2)
        assert await flush.begun.get() == 1
        clock.now += 100
        assert batcher.busy_seconds() == 0
        for gate in (1, 2):
            flush.gates[gate].set()
        assert [await first, await second] == [1, 2]


async def test_the_parts_of_a_batch_are_timed_one_by_one():
    """A search for what spoils a batch is no flush that hangs."""
    flush = Stuck()
    flush.gates[2].set()

    async def fail_together(items):
        if len(items) > 1:
            raise ValueError
        return await flush(items)

    clock = Clock()
    async with running(fail_together, clock=clock, size=2) as batcher:
        first, second = await submitted(batcher, 1, 2)
        assert await flush.begun.get() == 1
        clock.now += 100
        assert batcher.busy_seconds() == 100
        flush.gates[1].set()
        assert await flush.begun.get() == 2
        assert batcher.busy_seconds() == 0
        assert [await first, await second] == [1, 2]


@pytest.mark.parametrize(
    ("items", "batches"),
    [
        ([9], [[9]]),
        ([9, 1, 2], [[9], [1, 2]]),
        ([1, 9, 3], [[1], [9], [3]]),
        ([1, 2, 3, 9], [[1, 2], [3], [9]]),
        ([2, 2, 2, 1], [[2], [2], [2, 1]]),
    ],
)
async def test_a_batch_weighs_no_more_than_its_size(items, batches):
    """Items are weighed, not counted; one that is too heavy for any batch goes alone."""
    flush = Flush()
    async with running(flush, weigh=lambda item: item) as batcher:
        await asyncio.gather(*await submitted(batcher, *items))
    assert flush.batches == batches


async def test_a_cancelled_submitter_does_not_break_the_batch():
    """Given up before the flush, during it, or in a batch that fails: the others do not notice."""
    flush = Flush()
    async with running(flush) as batcher:
        flush.go_on.clear()
        first, second, third = await submitted(batcher, 1, 2, 3)
        first.cancel()
        await flush.begun.wait()
        second.cancel()
        unlucky, bystander, witness = await submitted(batcher, 12, 13, 14)
        unlucky.cancel()
        flush.go_on.set()
        assert await third == 30
        with pytest.raises(ValueError, match="thirteen"):
            await bystander
        assert await witness == 140
        assert await asyncio.gather(*await submitted(batcher, 4, 5, 6)) == [40, 50, 60]
    assert first.cancelled()
    assert second.cancelled()
    assert unlucky.cancelled()


class Stuck:
    """A flush that takes until it is told which batch may go on."""

    def __init__(self):
        self.begun = asyncio.Queue()
        self.gates = {item: asyncio.Event() for item in (1, 2, 3)}

    async def __call__(self, items):
        self.begun.put_nowait(items[0])
        await self.gates[items[0]].wait()
        return items


async def test_a_flush_that_hangs_does_not_hold_up_the_other():
    """Two at once: the second is done first, and the oldest says how long one has taken."""
    flush = Stuck()
    clock = Clock()
    async with running(flush, clock=clock, size=1, at_once=2) as batcher:
        first, second, third = await submitted(batcher, 1, 2, 3)
        assert [await flush.begun.get(), await flush.begun.get()] == [1, 2]
        assert flush.begun.empty()
        clock.now += 100
        flush.gates[2].set()
        assert await second == 2
        assert await flush.begun.get() == 3
        assert batcher.busy_seconds() == 100
        assert not first.done()
        flush.gates[1].set()
        flush.gates[3].set()
        assert [await first, await third] == [1, 3]
    assert batcher.busy_seconds() == 0


async def test_who_waits_for_a_flush_that_is_cancelled_does_not_wait_for_ever():
    """The loop is cancelled with two flushes under way: their submitters hear of it."""
    flush = Stuck()
    async with running(flush, size=1, at_once=2) as batcher:
        waiting = await submitted(batcher, 1, 2)
        assert [await flush.begun.get(), await flush.begun.get()] == [1, 2]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
