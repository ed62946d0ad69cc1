"""Many accounts at a glance: videos that share their times are counted, not listed."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from refresher.domain.model import OpenId

#: The expiry of a cover that there never was.
NO_COVER: Final = -inf


@dataclass(slots=True)
class Cohort:
    """Videos of one account that are alike: asked for together, they expire together.

    Times are Unix times in seconds; `expires_at` is `NO_COVER` where there is none. `missing`: the
    last answer left them out. `alone`: requests for them are refused, each is asked for alone.
    """

    due_at: float
    expires_at: float
    count: int
    misses: int = 0
    missing: bool = False
    alone: bool = False

    @property
    def reachable(self) -> bool:
        """Whether asking brings a cover."""
        return not (self.missing or self.alone)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All accounts at one moment, each with its cohorts in order of `due_at`."""

    now: float
    accounts: Mapping[OpenId, list[Cohort]]

    @property
    def videos(self) -> int:
        return sum(cohort.count for cohorts in self.accounts.values() for cohort in cohorts)


def add_cohort(cohorts: list[Cohort], new: Cohort) -> None:
    """Put it in its place by `due_at`, or together with its like."""
    place = len(cohorts)
    while place and cohorts[place - 1].due_at >= new.due_at:
        place -= 1
        if _alike(cohorts[place], new):
            cohorts[place].count += new.count
            return
    cohorts.insert(place, new)


def _alike(one: Cohort, other: Cohort) -> bool:
    return (
        one.due_at == other.due_at
        and one.expires_at == other.expires_at
        and one.misses == other.misses
        and one.missing == other.missing
        and one.alone == other.alone
    )
