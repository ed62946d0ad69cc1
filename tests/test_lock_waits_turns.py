"""Lock waits take turns, so that nobody else waits with them."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

import pytest

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable
from refresher.domain.model import Holder
from refresher.flow.lock_waits import LONGEST_TRY_SECONDS, LockWaits, Turns
from refresher.flow.outage import Outage
from refresher.flow.under_way import UnderWay
from tests.conftest import eventually

PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Item:
    open_id: str
    number: int = 0


class Database:
    """Rows that are locked; who asks for them waits no longer than he may."""

    def __init__(self, *locked):
        self.locked = set(locked)
        self.tries = []
        self.at_once = 0
        self.error = None

    async def __call__(self, items, lock_seconds, _name):
        (open_id,) = {item.open_id for item in items}
        self.tries.append((open_id, len(items), lock_seconds))
        assert self.at_once == 0, "two at a time"
        self.at_once += 1
        try:
            if open_id in self.locked:
                await asyncio.sleep(lock_seconds / 10)
                raise DatabaseBusy("lock")
            if self.error and any(item.number == 13 for item in items):
                raise self.error
        finally:
            self.at_once -= 1
        return [item.number for item in items]


async def until(condition):
    async def holds():
        return condition()

    await eventually(holds, "what was waited for")


@asynccontextmanager
async def waiting(database, holder=None):
    """Lock waits, the event that ends all waits, and what was said."""
    said = []
    give_up = asyncio.Event()

    async def who(name):
        return holder

    waits = LockWaits(
        database,
        Turns(who, Outage(lambda: 0.0, monotonic), give_up, monotonic),
        blocked=lambda open_id, items, holder, _: said.append((open_id, len(items), holder)),
        freed=lambda open_id, _: said.append((open_id, "freed")),
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        yield waits, give_up, said
    assert not waits.tasks


async def test_an_account_s_items_wait_together_and_the_others_pass():
    """All of one account in one statement; another's are done in between; it is said once."""
    database, holder = Database("ana"), Holder(7, "report", None)
    async with waiting(database, holder) as (waits, _, said):
        anas = [asyncio.create_task(waits.submit(Item("ana", number))) for number in (1, 2)]
        await asyncio.sleep(0)
        assert await waits.submit(Item("ben", 5)) == 5
        assert waits.has("ana")
        await until(lambda: said)
        assert said == [("ana", 2, holder)]
        database.locked.clear()
        assert [await task for task in anas] == [1, 2]
        assert said == [("ana", 2, holder), ("ana", "freed")]
        assert waits.has("ana")  # for a while
        assert not waits.has("cleo")
        await asyncio.sleep(0.1)
    assert {weight for open_id, weight, _ in database.tries if open_id == "ana"} <= {1, 2}


async def test_what_comes_while_a_statement_waits_has_its_own_result():
    """The lock was let go, and the items of the statement alone are done by it."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def alone(items, _seconds, _name):
        begun.set()
        await go_on.wait()
        return [item.number for item in items]

    async with waiting(alone) as (waits, _, _):
        first = asyncio.create_task(waits.submit(Item("ana", 1)))
        await begun.wait()
        second = asyncio.create_task(waits.submit(Item("ana", 2)))
        await asyncio.sleep(0)
        go_on.set()
        assert await asyncio.gather(first, second) == [1, 2]
        await until(lambda: not waits.tasks)


async def test_the_more_wait_the_shorter_are_their_turns():
    """So that each has one every few seconds."""
    database = Database(*(str(number) for number in range(20)))
    async with waiting(database) as (waits, give_up, _):
        tasks = [asyncio.create_task(waits.submit(Item(str(number)))) for number in range(20)]
        await until(lambda: len(database.tries) >= 40)
        give_up.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.1)
    assert {type(result) for result in results} == {DatabaseUnavailable}
    assert all(seconds <= LONGEST_TRY_SECONDS / 4 for _, _, seconds in database.tries)


async def test_who_queues_when_all_is_given_up_has_no_turn_more():
    """A stop must not wait for the tries of all."""
    database = Database(*(str(number) for number in range(20)))
    async with waiting(database) as (waits, give_up, _):
        tasks = [asyncio.create_task(waits.submit(Item(str(number)))) for number in range(20)]
        await until(lambda: len(database.tries) >= 5)
        give_up.set()
        tried = len(database.tries)
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.1)
    assert len(database.tries) <= tried + 1


async def test_a_row_that_is_refused_costs_its_account_s_others_nothing():
    """Items that fail together are tried one by one; only the bad one hears of it."""
    database = Database()
    database.error = ValueError("thirteen")
    async with waiting(database) as (waits, _, said):
        results = await asyncio.gather(
            *(waits.submit(Item("ana", number)) for number in (12, 13, 14)), return_exceptions=True
        )
        await asyncio.sleep(0.1)
    assert [results[0], results[2]] == [12, 14]
    assert isinstance(results[1], ValueError)
    assert said == []


async def test_a_database_that_goes_away_is_outlasted():
    """What waits is kept until it is back."""
    database = Database()
    database.error = DatabaseUnavailable("gone")
    async with waiting(database) as (waits, _, said):
        task = asyncio.create_task(waits.submit(Item("ana", 13)))
        await until(lambda: len(database.tries) >= 2)
        database.error = None
        assert await task == 13
        await asyncio.sleep(0.1)
    assert said == []


def test_a_lock_wait_is_not_under_way_as_far_as_memory_allows():
    """Others are claimed meanwhile; beyond a number what waits counts after all."""
    under_way = UnderWay(most_waits=1)
    with under_way, under_way, under_way:
        with under_way.lock_wait():
            assert under_way.chunks == 2
            with under_way.lock_wait():
                assert under_way.chunks == 2
        assert under_way.chunks == 3
    assert under_way.chunks == 0


def test_a_lock_wait_keeps_nobody_waiting_after_an_outage():
    """Also beyond that number: what is written together is done when only blocked chunks are left."""
    under_way = UnderWay(most_waits=1)
    with under_way, under_way, under_way.lock_wait(), under_way.lock_wait():
        assert (under_way.chunks, under_way.without_lock_waits) == (1, 0)
        with under_way:
            assert under_way.without_lock_waits == 1
        assert under_way.without_lock_waits == 0
    assert (under_way.chunks, under_way.without_lock_waits) == (0, 0)


async def test_a_short_wait_is_not_said():
    """Most locks are let go at once."""
    database = Database("ana")
    async with waiting(database) as (waits, _, said):
        task = asyncio.create_task(waits.submit(Item("ana", 3)))
        await until(lambda: database.tries)
        database.locked.clear()
        assert await task == 3
        await asyncio.sleep(0.1)
    assert said == []


@pytest.mark.parametrize("waits", [False, True])
async def test_a_lock_that_is_known_says_nothing_of_the_database(monkeypatch, waits):
    """A lock wait on its own does not count towards `database.lost`."""
    monkeypatch.setattr("refresher.flow.outage.BUSY_SECONDS", 0.0)
    outage = Outage(lambda: 0.0, monotonic)

    async def busy():
        raise DatabaseBusy("lock")

    for _ in range(2):
        with pytest.raises(DatabaseBusy):
            await outage.attempt(busy, may_wait=waits)
    assert outage.lasts is not waits
