"""APScheduler says when; the work is done elsewhere.

Its shutdown cancels running coroutine jobs, so a job here only sets an event. It must be a
coroutine all the same: plain functions run in threads, where an asyncio event must not be set.

It knows the wall clock only: set back by an hour, nothing is due for an hour; set ahead, it lists
every run that was "missed". So what is due is decided here by the monotonic clock, and a time that
the scheduler is told is never more than a statement of how long is left.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from refresher.domain.clocks import Beat, StepWatch
from refresher.events import CLOCK_STEPPED
from refresher.logs import emit

#: How often the clocks are compared: where the wall clock is set back, ticks are late by so much.
LOOK_SECONDS: Final = 1.0
#: Two readings that lie further apart say nothing: the process stood still between them.
READING_SECONDS: Final = 0.1


class BeatTrigger(BaseTrigger):  # type: ignore[misc]  # it ships no types
    """A beat as the scheduler asks for it: in so long from now, whatever time it is now."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat
        #: A beat was due and its job has not run yet.
        self.owed = False

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """After a run that beat is taken, if it was due by the monotonic clock."""
        if previous is not None:
            self.owed |= self._beat.take(time.monotonic())
        left = timedelta(seconds=self._beat.left(time.monotonic()))
        # Not `now` itself: the scheduler would list this run, too.
        return now + max(timedelta(microseconds=1), left)


class Schedule:
    """Events that are set again and again, by the monotonic clock."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC)

    def every(self, seconds: float, tick: asyncio.Event) -> asyncio.Event:
        """Set `tick` every so many seconds; ticks that were missed come as one."""
        trigger = BeatTrigger(Beat(seconds, time.monotonic()))

        async def set_tick() -> None:
            # Where only the wall clock said so it is too early: nothing is owed.
            if trigger.owed:
                trigger.owed = False
                tick.set()

        self._scheduler.add_job(
            set_tick, trigger, coalesce=True, max_instances=1, misfire_grace_time=None
        )
        return tick

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ticks come inside this context; a wall clock that is set meanwhile is said."""
        self._scheduler.start()
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            self._scheduler.shutdown(wait=False)

    async def _look(self) -> None:
        watch = StepWatch(time.time(), time.monotonic())
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            before, wall, after = time.monotonic(), time.time(), time.monotonic()
            if after - before > READING_SECONDS:
                continue
            if step := watch.step(wall, after):
                emit(CLOCK_STEPPED, seconds=round(step, 1))
                self._tell_what_is_left()

    def _tell_what_is_left(self) -> None:
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=job.trigger.get_next_fire_time(None, now))
