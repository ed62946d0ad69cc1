"""A stop: what may still be done, and until when."""

import asyncio
from collections.abc import Collection
from math import inf
from typing import Final

from refresher.domain.clocks import Clock

#: The part of the grace time that requests in flight may take; the rest is for writing back.
REQUESTS_PART: Final = 0.75
#: The part of it that a claim under way may take.
CLAIM_PART: Final = 0.25
CANCEL_SECONDS: Final = 0.5


class Stop:
    """The deadlines of a stop. They count from the first `request`."""

    def __init__(self, grace_seconds: float, clock: Clock) -> None:
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._deadline = inf
        #: Nothing more is claimed or sent.
        self.requested = asyncio.Event()
        #: Lock waits end.
        self.waits_over = asyncio.Event()
        #: What is not stored by now is lost.
        self.given_up = asyncio.Event()

    def request(self) -> None:
        """Begin to stop. Idempotent."""
        if not self.requested.is_set():
            self._deadline = self._clock() + self._grace_seconds
        self.requested.set()

    @property
    def claim_seconds(self) -> float:
        """How long a claim under way may still take."""
        return self._grace_seconds * CLAIM_PART

    @property
    def requests_left_seconds(self) -> float:
        """How long requests in flight may still take: the rest is for writing back."""
        return self.left_seconds - self._grace_seconds * (1 - REQUESTS_PART)

    @property
    def left_seconds(self) -> float:
        """How much of the grace time is left."""
        return self._deadline - self._clock()


async def cancelled(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel them and wait a moment: a statement may not react."""
    for task in tasks:
        task.cancel()
    await wait_for(tasks, CANCEL_SECONDS)


async def wait_for(tasks: Collection[asyncio.Task[None]], seconds: float) -> None:
    """Wait until they are done, or the time is over."""
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, seconds))
