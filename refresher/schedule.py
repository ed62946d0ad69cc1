"""APScheduler says when; the work is done elsewhere.

Its shutdown cancels running coroutine jobs, so a job here only sets an event. A job must be a
coroutine all the same: plain functions run in threads, where an asyncio event must not be set.

APScheduler knows only the wall clock. If that is set back by an hour, nothing is due for an hour;
if it is set ahead, every run in between was "missed". So the monotonic clock decides here what is
due, and the scheduler only hears how long to wait.
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

#: How often the clocks are compared: if the wall clock is set back, ticks are late by so much.
LOOK_SECONDS: Final = 1.0
#: While the process stands still, a job that was begun does not end, and the next ones come: with
#: fewer the scheduler would warn of each. They only set an event.
STILL_TO_RUN: Final = 60
#: Two readings further apart than this are not used: the process stood still in between.
READING_SECONDS: Final = 0.1


class BeatTrigger(BaseTrigger):  # type: ignore[misc]  # it ships no types
    """A beat for the scheduler: in so many seconds from now, whatever the wall clock says."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat
        #: A beat was due and its job has not run yet.
        self.owed = False

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The next run. After a run, its beat is taken if it was due by the monotonic clock."""
        if previous is not None:
            self.owed |= self._beat.take(time.monotonic())
        left = timedelta(seconds=self._beat.left(time.monotonic()))
        # Not `now` itself: the scheduler would count this as one more run.
        return now + max(timedelta(microseconds=1), left)


class Schedule:
    """Events that are set at intervals of the monotonic clock."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC)

    def every(self, seconds: float, tick: asyncio.Event) -> asyncio.Event:
        """Set `tick` every so many seconds, and return it. Missed ticks come as one."""
        trigger = BeatTrigger(Beat(seconds, time.monotonic()))

        async def set_tick() -> None:
            # Nothing is owed if only the wall clock said so: then it is too early.
            if trigger.owed:
                trigger.owed = False
                tick.set()

        self._scheduler.add_job(
            set_tick,
            trigger,
            coalesce=True,
            max_instances=STILL_TO_RUN,
            misfire_grace_time=None,
        )
        return tick

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ticks come inside this context. If the wall clock is set meanwhile, an event says so."""
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
