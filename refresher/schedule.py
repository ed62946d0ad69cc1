"""APScheduler says when; the work is done elsewhere.

Its shutdown cancels running coroutine jobs, so a job here only sets an event. It must be a
coroutine all the same: plain functions run in threads, where an asyncio event must not be set.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC

from apscheduler.schedulers.asyncio import AsyncIOScheduler


class Schedule:
    """Events that are set again and again."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC)

    def every(self, seconds: float, tick: asyncio.Event) -> asyncio.Event:
        """Set `tick` every so many seconds; ticks that were missed come as one."""

        async def set_tick() -> None:
            tick.set()

        self._scheduler.add_job(
            set_tick,
            "interval",
            seconds=seconds,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
        return tick

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ticks come inside this context."""
        self._scheduler.start()
        try:
            yield
        finally:
            self._scheduler.shutdown(wait=False)
