"""Which setting of a rate limit is too low for the stored covers, and what it would have to be."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final

from refresher.domain.checkup.facts import Demand
from refresher.domain.claiming import chunks_of
from refresher.domain.due import DuePolicy, due_after_refresh
from refresher.domain.pacing import APP_REACH_SECONDS, step_seconds

MINUTE_SECONDS: Final = 60.0
#: Above this share of a limit, one bad hour is not made up for.
CROWDED: Final = 0.8
#: Any moment would do.
SOME_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
PER_TOKEN: Final = "REFRESHER_RATE_LIMIT_PER_TOKEN"  # noqa: S105 - the name of a setting
PER_APP: Final = "REFRESHER_RATE_LIMIT_PER_APP"


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate limit, and what is needed of it. In requests a minute."""

    setting: str
    needed: float
    #: Slots have a distance that keeps to the limit, so this is a little less than the setting.
    allowed: float
    #: What the setting would have to be at least.
    wanted: int
    #: TikTok allows less than is set, as 429s have shown: the setting does not help.
    found: bool = False

    @property
    def share(self) -> float:
        """The part of it that is needed; above 1 covers die."""
        return self.needed / self.allowed

    @property
    def allows(self) -> str:
        """Whose limit it is, and how much of it is needed."""
        whose = "TikTok" if self.found else self.setting
        return f"{self.share:.0%} of the {self.allowed:,.1f} that {whose} allows"

    @property
    def remedy(self) -> str:
        if self.found:
            return f"ask TikTok for {self.wanted:,} requests a minute"
        return f"set {self.setting} to {self.wanted:,} if TikTok allows as much"


def needed_by_largest(demand: Demand) -> float:
    """By the account with the most videos, the first that a token's limit does not keep alive."""
    return _per_minute(chunks_of(demand.most_videos), 1.0, demand)


def needed_by_all(demand: Demand) -> float:
    """By all active accounts together."""
    return _per_minute(demand.chunks, 0.5, demand)


def limit_of_token(demand: Demand) -> Limit | None:
    """None where there is no limit."""
    limit, needed = demand.pace.limit_per_token, needed_by_largest(demand)
    if not limit:
        return None
    return Limit(PER_TOKEN, needed, MINUTE_SECONDS / step_seconds(limit), _wanted(needed, 0.0))


def limit_of_app(demand: Demand) -> Limit | None:
    """The lower of the limit that is set and the one that was found; None where there is none."""
    needed, found = needed_by_all(demand), demand.app.found_per_minute
    step = demand.pace.app_step_seconds
    allowed = MINUTE_SECONDS / step if step else None
    wanted = _wanted(needed, APP_REACH_SECONDS)
    if found is not None and (allowed is None or found < allowed):
        return Limit(PER_APP, needed, found, wanted, found=True)
    return None if allowed is None else Limit(PER_APP, needed, allowed, wanted)


def first_to_bind(demand: Demand) -> Limit | None:
    """The limit of which the largest share is needed."""
    limits = filter(None, [limit_of_token(demand), limit_of_app(demand)])
    return max(limits, key=lambda limit: limit.share, default=None)


def _wanted(needed: float, reach_seconds: float) -> int:
    return max(1, ceil(needed * step_seconds(1, reach_seconds) / MINUTE_SECONDS))


def _per_minute(chunks: int, account_spread: float, demand: Demand) -> float:
    """The requests a minute that ask for each chunk once in a life, as it falls due."""
    period = _period_seconds(demand.policy, account_spread, demand.life_seconds)
    return MINUTE_SECONDS * chunks / period


def _period_seconds(policy: DuePolicy, account_spread: float, life_seconds: float) -> float:
    expires_at = SOME_TIME + timedelta(seconds=life_seconds)
    due_at = due_after_refresh(policy, account_spread, SOME_TIME, expires_at)
    return (due_at - SOME_TIME).total_seconds()
