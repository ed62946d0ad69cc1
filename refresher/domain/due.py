"""When a video is due: the one place that knows lead, spread and back-off."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from refresher.domain.model import OpenId

#: Each wait is six times the one before: 1 min, 6 min, 36 min, 3.6 h, 21.6 h, 3 days.
FIRST_WAIT: Final = timedelta(minutes=1)
WAIT_GROWTH: Final = 6
LONGEST_WAIT: Final = timedelta(days=3)
#: A video that is there but has no newer cover may get one at the next full hour.
LONGEST_WAIT_WHILE_PRESENT: Final = timedelta(hours=1)
#: A video that spoils every request takes a request of its own each time.
FIRST_WAIT_AFTER_REFUSAL: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class DuePolicy:
    """The operator's settings that decide when a video is due."""

    #: Ask this long before expiry.
    lead: timedelta
    #: And up to this much earlier, by account.
    spread: timedelta
    #: The assumed life of a cover whose URL names no expiry.
    fallback_ttl: timedelta
    #: After so many misses in a row a video is gone.
    missing_limit: int


@lru_cache(maxsize=1024)  # every chunk of an account needs it
def account_spread(open_id: OpenId) -> float:
    """Where in the spread an account lies, in [0, 1): its covers are asked for that much earlier.

    Always the same for an account. Whole cohorts of covers expire in the same second, at a full
    hour; this spreads the requests for them.
    """
    return stable_fraction(open_id)


def stable_fraction(text: str) -> float:
    """A number in [0, 1), the same for the same text everywhere."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def due_after_refresh(
    policy: DuePolicy,
    account_spread: float,
    answered_at: datetime,
    expires_at: datetime,
    grown_seconds: float = 0.0,
) -> datetime:
    """When to refresh a cover: `seconds_ahead` of its expiry. `account_spread` is the account's."""
    life_seconds = (expires_at - answered_at).total_seconds()
    ahead = seconds_ahead(policy, account_spread, life_seconds, grown_seconds)
    return expires_at - timedelta(seconds=ahead)


def seconds_ahead(
    policy: DuePolicy, account_spread: float, life_seconds: float, grown_seconds: float = 0.0
) -> float:
    """How long before its expiry a cover is asked for: the lead, and the account's spread.

    The lead is the operator's and what that of the cover's host has grown by. If lead and spread
    together are more than a third of the cover's life, both shrink by the same factor, so that
    short-lived covers keep their spread.
    """
    lead, spread = policy.lead.total_seconds() + grown_seconds, policy.spread.total_seconds()
    longest, ahead = lead + spread, lead + spread * account_spread
    allowed = longest_ahead(life_seconds)
    return ahead * (allowed / longest) if longest > allowed > 0 else ahead


def longest_ahead(life_seconds: float) -> float:
    """The last third of a cover's life: nothing is asked for before it."""
    return life_seconds / 3


def wait_after_miss(misses: int, *, present: bool) -> timedelta:
    """How long to wait after a video's `misses`-th answer in a row without a newer cover.

    `present`: the video was in the answer.
    """
    longest = LONGEST_WAIT_WHILE_PRESENT if present else LONGEST_WAIT
    growth: int = WAIT_GROWTH ** min(misses - 1, 10)
    return min(FIRST_WAIT * growth, longest)


def wait_after_refusal(misses: int) -> timedelta:
    """How long to wait with a video for which requests are refused, after so many misses."""
    growth: int = WAIT_GROWTH ** min(max(misses, 1) - 1, 10)
    return min(FIRST_WAIT_AFTER_REFUSAL * growth, LONGEST_WAIT)
