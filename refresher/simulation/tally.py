"""What happened in a simulation, by the minute."""

from collections.abc import Sequence
from itertools import accumulate
from math import ceil

from refresher.domain.cohorts import Cohort
from refresher.domain.model import CHUNK_SIZE
from refresher.simulation.plan import MINUTE_SECONDS


class Tally:
    """Watches an engine, which works for so many seconds from `start` on."""

    def __init__(self, start: float, seconds: float) -> None:
        self._start = start
        self._seconds = seconds
        minutes = ceil(seconds / MINUTE_SECONDS)
        self.requests_by_minute = [0] * minutes
        #: How many more covers are dead in a minute than in the one before.
        self._deaths_by_minute = [0] * (minutes + 1)
        self._chunks = 0
        self._videos = 0
        #: By account: the minute of its last request, and its requests in that minute.
        self._latest: dict[int, tuple[int, int]] = {}
        self.busiest_token = 0
        self.first_death_seconds: float | None = None
        self.closest_call_seconds: float | None = None
        self._last_dead_seconds = 0.0

    @property
    def all_valid_seconds(self) -> float | None:
        """From when on no cover was dead; None where some were dead at the end."""
        last = self._last_dead_seconds
        return last if last < self._seconds else None

    @property
    def chunk_fill(self) -> float:
        """Videos asked for per request, as a share of twenty."""
        return self._videos / (CHUNK_SIZE * self._chunks) if self._chunks else 0.0

    def valid_share_by_minute(self, videos: int) -> Sequence[float]:
        """The share of valid covers in each minute, out of so many."""
        # A cover that lives hardly a minute may die twice in a minute. It is dead once at most.
        dead = accumulate(self._deaths_by_minute[:-1])
        return [1 - min(number, videos) / videos if videos else 1.0 for number in dead]

    def asked(self, account: int, sent_at: float, chunks: int, videos: int) -> None:
        elapsed = sent_at - self._start
        if elapsed >= self._seconds:
            return
        minute = int(elapsed // MINUTE_SECONDS)
        self.requests_by_minute[minute] += chunks
        self._chunks += chunks
        self._videos += videos
        latest, number = self._latest.get(account, (minute, 0))
        number = chunks + (number if latest == minute else 0)
        self._latest[account] = minute, number
        self.busiest_token = max(self.busiest_token, number)

    def refreshed(self, _account: int, old: Cohort, answered_at: float, videos: int) -> None:
        left = old.expires_at - answered_at
        if left < 0:
            self._dead(old.expires_at, answered_at, videos)
        elif self.closest_call_seconds is None or left < self.closest_call_seconds:
            self.closest_call_seconds = left

    def left(self, cohort: Cohort) -> None:
        """Count a cohort as it is at the end."""
        if cohort.reachable:
            self._dead(cohort.expires_at, self._start + self._seconds, cohort.count)

    def _dead(self, since: float, until: float, videos: int) -> None:
        begun = max(since - self._start, 0.0)
        ended = min(until - self._start, self._seconds)
        if begun >= ended:
            return
        self._deaths_by_minute[int(begun // MINUTE_SECONDS)] += videos
        self._deaths_by_minute[ceil(ended / MINUTE_SECONDS)] -= videos
        self._last_dead_seconds = max(self._last_dead_seconds, ended)
        if begun > 0 and (self.first_death_seconds is None or begun < self.first_death_seconds):
            self.first_death_seconds = begun
