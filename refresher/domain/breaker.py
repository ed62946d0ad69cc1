"""How many requests may be in flight: few at first, many while the API answers, none while not."""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

#: While only bad accounts are due nobody is answered, and their failures take up to four of these.
#: What is left has to do for a new video of another account, also where each failure takes long.
FIRST_WINDOW: Final = 8
#: After so long without a request nobody knows how the API is: as at first.
IDLE_SECONDS: Final = 10.0
#: It opens after so many failures in a row, of so many accounts at least: an account that fails
#: all by itself has its own back-off.
RUN: Final = 5
ACCOUNTS: Final = 2
#: The longest pause before the first probe, after one that failed, and so on. Short ones come
#: first, so that an outage is soon told from bad luck.
PROBE_SECONDS: Final = (1.0, 1.5, 3.0, 6.0, 8.0)
#: Of so many failed probes, each of another account, the API is taken to be away. Where one account
#: in five is bad and all of those came first, one time in two thousand all four are bad by chance.
LOST_PROBES: Final = 4


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
        self.last_success = -inf
        self._run: deque[str] = deque(maxlen=RUN)
        self._opened_at: float | None = None
        self._open_seconds = 0.0
        self._paused_until = -inf
        self._probing = False
        self._failed_probes = 0

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    @property
    def is_lost(self) -> bool:
        """Open, and that it is not single accounts' fault has been seen."""
        return self.is_open and self._failed_probes >= LOST_PROBES

    def window(self, now: float) -> int:
        """The requests allowed in flight in all; open, 0 during the pause and then 1, a probe."""
        if self.is_open:
            return int(now >= self._paused_until)
        # What has just failed for a second account is not sent for a third before it is known why.
        doubts = len(set(self._run)) - 1 if self._run else 0
        return max(1, self._closed_window(now) - doubts)

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
            self._window = self._closed_window(now)
        self._last_sent = now

    def succeeded(self, now: float) -> bool:
        """Widen the window by one; open, close it. Says whether the API had been lost.

        Then the window is one; where it was only not yet known, few as at first.
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
        """Count a request, sent then, that brought no answer. Says whether this lost the API.

        It says nothing of the API where that has answered others since, nor where the account is
        known to fail by itself, and that is no `news`.
        """
        if self.is_open:
            return self._probe_failed(now, news=news)
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
        self._failed_probes = 0
        self._pause(now)

    def _probe_failed(self, now: float, *, news: bool) -> bool:
        # A probe goes when nothing else is in flight. So a failure before it is that of a request
        # older than the opening, which says nothing new; and a failure after it is the probe's.
        if not self._probing:
            return False
        self._failed_probes += news
        self._pause(now)
        return news and self._failed_probes == LOST_PROBES

    def _pause(self, now: float) -> None:
        """Half to all of the time: replicas shall not probe in step."""
        self._probing = False
        longest = PROBE_SECONDS[min(self._failed_probes, len(PROBE_SECONDS) - 1)]
        self._paused_until = now + longest * (1 + self._chance()) / 2
