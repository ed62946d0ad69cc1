"""Waiting out a database that is away."""

import asyncio
from contextlib import suppress
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from refresher.domain.errors import DatabaseBusy, DatabaseUnavailable
from refresher.flow import outage as module
from refresher.flow.outage import BUSY_SECONDS, FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, Outage

PATIENCE_SECONDS = 30


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outage(monkeypatch, clock):
    """An outage that is waited out without any delay."""
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.0)
    return Outage(lambda: 0.0, clock)


def away(times, result="result"):
    """A unit that finds no database so many times."""
    left = [DatabaseUnavailable("connection refused")] * times

    async def unit():
        if left:
            raise left.pop()
        return result

    return unit


def events(logs):
    return [entry["event"] for entry in logs]


async def test_a_database_that_is_there_is_no_news(outage):
    """The result comes at once and nothing is logged, even with the giving up asked for."""
    give_up = asyncio.Event()
    give_up.set()
    with capture_logs() as logs:
        assert await outage.outlast(away(0), give_up) == "result"
    assert events(logs) == []
    assert not outage.lasts


async def test_lost_and_recovered_are_said_once(outage):
    """However often it is tried: one line when the database goes, one when it is back."""
    with capture_logs() as logs:
        assert await outage.outlast(away(5), asyncio.Event()) == "result"
        assert await outage.outlast(away(0), asyncio.Event()) == "result"
    assert events(logs) == ["database.lost", "database.recovered"]
    assert logs[0]["reason"] == "connection refused"
    assert logs[1]["away_seconds"] >= 0


async def test_all_who_wait_share_one_outage(outage):
    """Several statements that fail at the same time are one outage."""
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            for result in range(5):
                group.create_task(outage.outlast(away(3, result), asyncio.Event()))
            await asyncio.sleep(0)
            assert outage.lasts
    assert events(logs).count("database.lost") == events(logs).count("database.recovered") == 1


async def test_each_outage_is_said_anew(outage):
    """A database that goes away again is news again."""
    with capture_logs() as logs:
        await outage.outlast(away(1), asyncio.Event())
        await outage.outlast(away(1), asyncio.Event())
    assert events(logs) == 2 * ["database.lost", "database.recovered"]


async def busy():
    raise DatabaseBusy("lock not available")


async def tried(outage, unit):
    with suppress(DatabaseBusy):
        await outage.attempt(unit)


async def test_locks_that_are_let_go_are_no_news(outage, clock):
    """As long as a statement passes now and then, one that meets a lock is no outage."""
    with capture_logs() as logs:
        for _ in range(5):
            await tried(outage, busy)
            clock.now += BUSY_SECONDS - 1
            await tried(outage, busy)
            await outage.attempt(away(0))
    assert events(logs) == []
    assert not outage.lasts


async def test_locks_that_let_nothing_through_are_an_outage(outage, clock):
    """Somebody has locked a table and forgotten it: that is said, once, and so is its end."""
    with capture_logs() as logs:
        for _ in range(5):
            await tried(outage, busy)
            clock.now += BUSY_SECONDS
        assert outage.lasts
        await outage.attempt(away(0))
    assert events(logs) == ["database.lost", "database.recovered"]
    assert logs[0]["reason"] == "lock not available"


async def test_gives_up_when_told():
    """Told to give up, the failure is raised and not tried again; the outage goes on."""
    outage, give_up, tries = Outage(lambda: 0.0, monotonic), asyncio.Event(), 0

    async def unit():
        nonlocal tries
        tries += 1
        give_up.set()
        raise DatabaseUnavailable("gone")

    with capture_logs() as logs, pytest.raises(DatabaseUnavailable, match="gone"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await outage.outlast(unit, give_up)
    assert tries == 1
    assert outage.lasts
    assert events(logs) == ["database.lost"]


async def test_a_wait_ends_at_once_when_told_to_give_up(monkeypatch):
    """Whoever is told to give up while waiting tries once more and does not wait again."""
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(module, "LONGEST_WAIT_SECONDS", 3600.0)
    give_up, tried, find = asyncio.Event(), asyncio.Event(), away(1)

    async def unit():
        tried.set()
        return await find()

    with capture_logs():
        async with asyncio.timeout(PATIENCE_SECONDS):
            waiting = asyncio.create_task(Outage(lambda: 0.0, monotonic).outlast(unit, give_up))
            await tried.wait()
            give_up.set()
            assert await waiting == "result"


async def test_other_errors_are_not_outlasted(outage):
    """A mistake of ours is not tried again."""

    async def unit():
        raise ZeroDivisionError

    with capture_logs() as logs, pytest.raises(ZeroDivisionError):
        await outage.outlast(unit, asyncio.Event())
    assert events(logs) == []


@given(attempt=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_a_bound(attempt, chance):
    """Doubled with every try up to a few seconds, half to all of it by chance."""
    wait = Outage(lambda: chance, monotonic)._wait_seconds(attempt)
    bound = min(FIRST_WAIT_SECONDS * 2.0 ** min(attempt, 100), LONGEST_WAIT_SECONDS)
    assert bound / 2 <= wait <= bound


async def test_an_answer_asked_for_before_the_outage_does_not_end_it(outage, clock):
    """It was under way when another statement found the database gone."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow():
        asked.set()
        await answer.wait()
        return "result"

    with capture_logs() as logs:
        task = asyncio.create_task(outage.attempt(slow))
        await asked.wait()
        clock.now += 1
        with suppress(DatabaseUnavailable):
            await outage.attempt(away(1))
        answer.set()
        assert await task == "result"
        assert outage.lasts
        await outage.attempt(away(0))
    assert events(logs) == ["database.lost", "database.recovered"]
