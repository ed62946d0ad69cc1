"""The monotonic clock, and steps of the wall clock against it."""

from collections.abc import Callable
from typing import Final

#: Seconds of a monotonic clock, as `time.monotonic`.
Clock = Callable[[], float]
#: A random number in [0, 1), for jitter.
Chance = Callable[[], float]

#: Less is slewing, or the time between two readings: it is not told.
LEAST_STEP_SECONDS: Final = 1.0


class Beat:
    """When to beat next, every so many seconds of the monotonic clock.

    If the process stood still, the beats that were missed come as one.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._due_at = now + seconds

    def left(self, now: float) -> float:
        """Seconds until the next beat; 0 if it is due."""
        return max(0.0, self._due_at - now)

    def take(self, now: float) -> bool:
        """Whether a beat is due. If so, the next one is half an interval to one away."""
        if now < self._due_at:
            return False
        # A very late beat begins a new series, so that two never follow each other closely: the
        # second would find the job of the first still running.
        is_late = now - self._due_at >= self._seconds / 2
        self._due_at = self._seconds + (now if is_late else self._due_at)
        return True


class StepWatch:
    """Notices that the wall clock was set, from readings of it and of the monotonic clock."""

    def __init__(self, wall: float, monotonic: float) -> None:
        self._ahead = wall - monotonic

    def step(self, wall: float, monotonic: float) -> float:
        """By how many seconds the wall clock was set since the last call; 0.0 if it was not."""
        ahead = wall - monotonic
        step, self._ahead = ahead - self._ahead, ahead
        return step if abs(step) >= LEAST_STEP_SECONDS else 0.0
