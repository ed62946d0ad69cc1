"""Whose covers die in a simulation, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, inf

from refresher.domain.cohorts import NO_COVER, Cohort, Fleet
from refresher.domain.model import OpenId
from refresher.simulation.plan import MINUTE_SECONDS


@dataclass(frozen=True, slots=True)
class Loss:
    """An account that loses covers."""

    open_id: OpenId
    #: A cover that dies twice counts twice.
    deaths: int
    #: Unix time.
    first_death_at: float


class Losses:
    """Watches an engine that works this fleet for so many seconds.

    A cover that is dead at the start is dead until it is refreshed, but does not die. A video
    without a cover only counts where it gets none in all the time: then as dead throughout.
    """

    def __init__(self, fleet: Fleet, seconds: float) -> None:
        self._start = fleet.now
        self._seconds = seconds
        self._open_ids = list(fleet.accounts)
        self._weights = [fleet.weights.get(open_id, 1.0) for open_id in self._open_ids]
        minutes = ceil(seconds / MINUTE_SECONDS)
        self._deaths_by_minute = [0.0] * minutes
        #: How many more covers are dead in a minute than in the one before.
        self._changes_by_minute = [0.0] * (minutes + 1)
        #: By account: deaths, and seconds until the first.
        self._lost: dict[int, tuple[int, float]] = {}

    def asked(self, account: int, sent_at: float, chunks: int, videos: int) -> None:
        """A request alone changes no cover."""

    def refreshed(self, account: int, old: Cohort, answered_at: float, videos: int, /) -> None:
        if NO_COVER < old.expires_at < answered_at:
            self._dead(account, old.expires_at, answered_at, videos)

    def left(self, account: int, cohort: Cohort) -> None:
        """Count a cohort as it is at the end."""
        if cohort.reachable:
            self._dead(account, cohort.expires_at, inf, cohort.count)

    @property
    def first_death_seconds(self) -> float | None:
        """After how long the first cover dies; None where none does."""
        return min((first for _, first in self._lost.values()), default=None)

    @property
    def accounts(self) -> float:
        """How many accounts lose covers."""
        return sum(self._weights[account] for account in self._lost)

    def deaths(self, within_seconds: float = inf) -> float:
        """How many covers die in the first so many seconds, to the minute."""
        minutes = min(within_seconds / MINUTE_SECONDS, len(self._deaths_by_minute))
        return sum(self._deaths_by_minute[: ceil(minutes)])

    def dead_by_minute(self) -> Sequence[float]:
        """How many covers are dead in each minute, for a part of it or for all of it."""
        return list(accumulate(self._changes_by_minute[:-1]))

    def by_account(self) -> Sequence[Loss]:
        """The accounts that lose covers, those that lose most first."""
        losses = [
            Loss(self._open_ids[account], deaths, self._start + first)
            for account, (deaths, first) in self._lost.items()
        ]
        return sorted(losses, key=lambda loss: (-loss.deaths, loss.first_death_at, loss.open_id))

    def _dead(self, account: int, since: float, until: float, videos: int) -> None:
        begun, ended = since - self._start, min(until - self._start, self._seconds)
        if max(begun, 0.0) >= ended:
            return
        covers = videos * self._weights[account]
        self._changes_by_minute[int(max(begun, 0.0) // MINUTE_SECONDS)] += covers
        self._changes_by_minute[ceil(ended / MINUTE_SECONDS)] -= covers
        if begun > 0:
            self._deaths_by_minute[int(begun // MINUTE_SECONDS)] += covers
            deaths, first = self._lost.get(account, (0, begun))
            self._lost[account] = deaths + videos, min(first, begun)
