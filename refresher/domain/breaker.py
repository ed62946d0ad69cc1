"""How many requests may be in flight: few at first, many while the API answers, none while not."""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

FIRST_WINDOW: Final = 8
#: After so long without a request nobody knows how the API is: as at first.
IDLE_SECONDS: Final = 10.0
#: It opens after so many failures in a row, of so many accounts at least: an account that fails
#: all by itself has its own back-off.
RUN: Final = 5
ACCOUNTS: Final = 2
FIRST_PROBE_SECONDS: Final = 1.0
LONGEST_PROBE_SECONDS: Final = 8.0


class Breaker:
    """A circuit breaker that closes by and by. Times are monotonic seconds, `chance` in [0, 1).

    The caller counts what is in flight, and sends while that is less than `window`. It may drop a
    request without telling its end. Whatever the API itself answers is a success, a 401 too.
    """

    def __init__(self, most: int, chance: Callable[[], float]) -> None:
        self._most = most
        self._chance = chance
        self._window = min(FIRST_WINDOW, most)
        self._last_sent = -inf
        self._run: deque[str] = deque(maxlen=RUN)
        self._opened_at: float | None = None
        self._open_seconds = 0.0
        self._longest_pause = FIRST_PROBE_SECONDS
        self._paused_until = -inf
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    def window(self, now: float) -> int:
        """The requests allowed in flight in all; open, 0 during the pause and then 1, a probe."""
        if self.is_open:
            return int(now >= self._paused_until)
        if now - self._last_sent >= IDLE_SECONDS:
            return min(self._window, FIRST_WINDOW)
        return self._window

    def pause_left(self, now: float) -> float:
        """Seconds until a probe may go; 0 when it may, and when closed."""
        return max(0.0, self._paused_until - now) if self.is_open else 0.0

    def open_seconds(self, now: float) -> float:
        """How long it has been open; closed, how long it was the last time."""
        return self._open_seconds if self._opened_at is None else now - self._opened_at

    def sent(self, now: float) -> None:
        if self.is_open:
            self._probing = True
        else:
            self._window = self.window(now)
        self._last_sent = now

    def succeeded(self, now: float) -> bool:
        """Widen the window by one; open, close it with a window of one. Says whether it closed."""
        self._run.clear()
        if not self.is_open:
            self._window = min(self.window(now) + 1, self._most)
            return False
        self._open_seconds = self.open_seconds(now)
        self._opened_at = None
        self._window = 1
        return True

    def failed(self, account: str, now: float) -> bool:
        """Count a request without an answer. Says whether this opened it."""
        if self.is_open:
            self._probe_failed(now)
            return False
        self._run.append(account)
        if len(self._run) < RUN or len(set(self._run)) < ACCOUNTS:
            return False
        self._open(now)
        return True

    def _open(self, now: float) -> None:
        self._opened_at = now
        self._longest_pause = FIRST_PROBE_SECONDS
        self._pause(now)

    def _probe_failed(self, now: float) -> None:
        # A probe goes when nothing else is in flight. So a failure before it is that of a request
        # older than the opening, which says nothing new; and a failure after it is the probe's.
        if self._probing:
            self._longest_pause = min(2 * self._longest_pause, LONGEST_PROBE_SECONDS)
            self._pause(now)

    def _pause(self, now: float) -> None:
        """Half to all of the time: replicas shall not probe in step."""
        self._probing = False
        self._paused_until = now + self._longest_pause * (1 + self._chance()) / 2
