"""One reading of the database for all who ask."""

import asyncio

from structlog.testing import capture_logs

from refresher.domain.errors import DatabaseUnavailable, StatementFailed
from refresher.operations.shared import Shared


class Source:
    """Reads numbers, one a call, when it may; its clock is moved by the test."""

    def __init__(self):
        self.now = 0.0
        self.reads = 0
        self.may = asyncio.Event()
        self.may.set()
        self.away = False
        self.broken = False
        self.refused = False

    async def read(self):
        self.reads += 1
        await self.may.wait()
        if self.away:
            raise DatabaseUnavailable
        if self.refused:
            raise StatementFailed
        if self.broken:
            raise ZeroDivisionError
        return self.reads

    def shared(self, **options):
        return Shared(self.read, lambda: self.now, fresh_seconds=10, **options)


async def test_fifty_viewers_cost_one_reading():
    """Those who ask while it is read wait for the same one."""
    source = Source()
    shared = source.shared()
    readings = await asyncio.gather(*(shared.latest() for _ in range(50)))
    assert {reading.value for reading in readings} == {1}
    source.now = 9.9
    assert (await shared.latest()).value == 1
    source.now = 10.0
    assert (await shared.latest()).value == 2
    assert source.reads == 2


async def test_while_the_database_is_away_the_old_reading_shows_its_age():
    """And it is not asked more often than while it answers."""
    source = Source()
    shared = source.shared()
    assert shared.reading is None
    await shared.latest()
    source.away, source.now = True, 60.0
    for _ in range(5):
        assert (await shared.latest()).value == 1
    assert source.now - shared.reading.read_at == 60.0
    assert source.reads == 2
    source.away, source.now = False, 70.0
    assert (await shared.latest()).value == 3


async def test_nothing_has_been_read_so_far():
    """There is no answer, and no error."""
    source = Source()
    source.away = True
    assert await source.shared().latest() is None


async def test_nobody_waits_long_for_a_slow_database():
    """The reading goes on, and is there for the next one who asks."""
    source = Source()
    source.may.clear()
    shared = source.shared(first_patience_seconds=0.01)
    assert await shared.latest() is None
    assert await shared.latest() is None
    source.may.set()
    assert (await shared.latest()).value == 1
    assert source.reads == 1


async def test_an_old_reading_is_not_held_back_for_long(monkeypatch):
    """However long the first one may be waited for."""
    monkeypatch.setattr("refresher.operations.shared.PATIENCE_SECONDS", 0.01)
    source = Source()
    shared = source.shared(first_patience_seconds=3600)
    assert (await shared.latest()).value == 1
    source.now = 10.0
    source.may.clear()
    assert (await shared.latest()).value == 1


async def test_an_error_that_nobody_foresaw_is_logged_once_a_reading():
    """Whoever asks gets what there is, and the next reading is tried."""
    source = Source()
    shared = source.shared()
    await shared.latest()
    source.broken, source.now = True, 10.0
    with capture_logs() as logs:
        assert (await shared.latest()).value == 1
    assert [(line["event"], line["loop"]) for line in logs] == [("loop.failed", "operations")]
    source.broken, source.now = False, 20.0
    assert (await shared.latest()).value == 3


async def test_what_the_database_refuses_is_logged_once_until_it_is_read_again():
    """And nothing of a database that is away."""
    source = Source()
    shared = source.shared()
    with capture_logs() as logs:
        for turn, (away, refused) in enumerate(
            [(True, False), (False, True), (False, True), (False, False), (False, True)]
        ):
            source.now = 100.0 * turn
            source.away, source.refused = away, refused
            await shared.latest()
    assert [(line["event"], line["loop"]) for line in logs] == [("loop.failed", "operations")] * 2


async def test_after_a_slow_reading_the_next_one_waits_as_long_as_it_took():
    """From its end on."""
    source = Source()
    source.may.clear()
    shared = source.shared(first_patience_seconds=0.01)
    await shared.latest()
    source.now = 30.0
    source.may.set()
    assert (await shared.latest()).value == 1
    source.now = 59.0
    assert (await shared.latest()).value == 1
    source.now = 60.0
    assert (await shared.latest()).value == 2
