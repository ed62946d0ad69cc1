"""When a video is due: the one place that knows lead, spread and back-off."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from refresher.domain.model import OpenId

# One minute, then six times as long each time: 1 min, 6 min, 36 min, 3.6 h, 21.6 h, 3 days.
NO_TIME: Final = timedelta(0)
FIRST_WAIT: Final = timedelta(minutes=1)
WAIT_GROWTH: Final = 6
LONGEST_WAIT: Final = timedelta(days=3)
# A video that is there but has no newer cover may get one at the next full hour.
LONGEST_WAIT_WHILE_PRESENT: Final = timedelta(hours=1)
# A video that spoils every request costs one of its own each time.
FIRST_WAIT_AFTER_REFUSAL: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class DuePolicy:
    """The operator's settings that decide when a video is due."""

    lead: timedelta
    spread: timedelta
    fallback_ttl: timedelta
    missing_limit: int


@lru_cache(maxsize=1024)  # asked for with every chunk of an account that is worked
def account_share(open_id: OpenId) -> float:
    """A stable number in [0, 1) by which an account's covers are asked for earlier.

    Covers expire at full hours, whole cohorts in the same second; this spreads the asking.
    """
    return stable_share(open_id)


def stable_share(text: str) -> float:
    """A number in [0, 1), the same for the same text everywhere."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def due_after_refresh(
    policy: DuePolicy, share: float, answered_at: datetime, expires_at: datetime
) -> datetime:
    """When to ask again for a cover: lead and spread before expiry.

    Where the two together would reach back before two thirds of the cover's life, both shrink
    alike, so that short-lived covers keep their spread.
    """
    longest = policy.lead + policy.spread
    reach = policy.lead + policy.spread * share
    allowed = (expires_at - answered_at) / 3
    return expires_at - (reach * (allowed / longest) if longest > allowed > NO_TIME else reach)


def wait_after_miss(misses: int, *, present: bool) -> timedelta:
    """How long to leave a video alone after its `misses`-th answer in a row without a newer cover.

    `present`: the video was in the answer.
    """
    longest = LONGEST_WAIT_WHILE_PRESENT if present else LONGEST_WAIT
    growth: int = WAIT_GROWTH ** min(misses - 1, 10)
    return min(FIRST_WAIT * growth, longest)


def wait_after_refusal(misses: int) -> timedelta:
    """How long to leave a video alone for which requests are refused, after so many misses."""
    growth: int = WAIT_GROWTH ** min(max(misses, 1) - 1, 10)
    return min(FIRST_WAIT_AFTER_REFUSAL * growth, LONGEST_WAIT)
