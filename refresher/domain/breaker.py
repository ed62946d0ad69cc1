"""How many requests may be in flight: few at first, many while the API answers, else none."""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

#: While only bad accounts are due, nobody is answered, and their failures take up to four of these.
#: The rest must be enough for a new video of another account, even if each failure takes long.
FIRST_WINDOW: Final = 8
#: After so long without a request we do not know the state of the API: we begin anew.
IDLE_SECONDS: Final = 10.0
#: It opens after so many failures in a row, of at least so many accounts: one account that fails by
#: itself has its own back-off.
RUN: Final = 5
ACCOUNTS: Final = 2
#: The longest pause before the first trial, before the second, and so on. Short ones come first, so
#: that we soon tell an outage from bad luck.
TRIAL_SECONDS: Final = (1.0, 1.5, 3.0, 6.0, 8.0)
#: After so many failed trials, each of another account, the API counts as away. If one account in
#: five is bad and the bad ones come first, all four are bad by chance once in two thousand times.
LOST_TRIALS: Final = 4


class Breaker:
    """A circuit breaker that closes step by step. Times are monotonic seconds, `chance` in [0, 1).

    The caller counts requests in flight and sends while they are fewer than `window`. It need not
    tell how a request ended. Whatever the API itself answers is a success, even a 401.
    """

    def __init__(self, most: int, chance: Callable[[], float]) -> None:
        self._most = most
        self._chance = chance
        self._window = min(FIRST_WINDOW, most)
        self._last_sent = -inf
        self.last_success = -inf
        self._run: deque[str] = deque(maxlen=RUN)
        self._opened_at: float | None = None
        self._open_seconds = 0.0
        self._paused_until = -inf
        self._in_trial = False
        self._failed_trials = 0

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    @property
    def is_lost(self) -> bool:
        """Open, and shown not to be the fault of single accounts."""
        return self.is_open and self._failed_trials >= LOST_TRIALS

    def window(self, now: float) -> int:
        """How many requests may be in flight; open: 0 during the pause, then 1, a trial."""
        if self.is_open:
            return int(now >= self._paused_until)
        # Each further account that has just failed makes the window smaller, until one is answered.
        doubts = len(set(self._run)) - 1 if self._run else 0
        return max(1, self._closed_window(now) - doubts)

    def pause_left(self, now: float) -> float:
        """Seconds until a trial may be sent; 0 if it may be now, or if closed."""
        return max(0.0, self._paused_until - now) if self.is_open else 0.0

    def open_seconds(self, now: float) -> float:
        """How long it has been open; if closed, how long it was open the last time."""
        return self._open_seconds if self._opened_at is None else now - self._opened_at

    def sent(self, now: float) -> None:
        if self.is_open:
            self._in_trial = True
        else:
            self._window = self._closed_window(now)
        self._last_sent = now

    def succeeded(self, now: float) -> bool:
        """Widen the window by one, or close if open. Returns whether the API had been lost.

        After that the window is 1; after an opening that was no outage, at most as at first.
        """
        self._run.clear()
        self.last_success = now
        if self._opened_at is None:
            self._window = min(self._closed_window(now) + 1, self._most)
            return False
        was_lost, self._open_seconds = self.is_lost, now - self._opened_at
        self._opened_at = None
        self._window = 1 if was_lost else min(self._window, FIRST_WINDOW)
        return was_lost

    def failed(self, account: str, sent: float, now: float, *, news: bool = True) -> bool:
        """Count a request, sent at `sent`, without an answer. Returns whether the API is now lost.

        The failure says nothing about the API if it has answered others since, or if it is no
        `news`: the account is known to fail by itself.
        """
        if self.is_open:
            return self._trial_failed(now, news=news)
        if news and sent >= self.last_success:
            self._run.append(account)
        if len(self._run) == RUN and len(set(self._run)) >= ACCOUNTS:
            self._open(now)
        return False

    def _closed_window(self, now: float) -> int:
        is_idle = now - self._last_sent >= IDLE_SECONDS
        return min(self._window, FIRST_WINDOW) if is_idle else self._window

    def _open(self, now: float) -> None:
        self._opened_at = now
        self._failed_trials = 0
        self._pause(now)

    def _trial_failed(self, now: float, *, news: bool) -> bool:
        # A trial is sent when nothing else is in flight. So a failure before it belongs to a
        # request from before the opening and says nothing new; a failure after it is the trial's.
        if not self._in_trial:
            return False
        self._failed_trials += news
        self._pause(now)
        return news and self._failed_trials == LOST_TRIALS

    def _pause(self, now: float) -> None:
        """Pause for half to all of the time, so that replicas do not try together."""
        self._in_trial = False
        longest = TRIAL_SECONDS[min(self._failed_trials, len(TRIAL_SECONDS) - 1)]
        self._paused_until = now + longest * (1 + self._chance()) / 2
