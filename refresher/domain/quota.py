"""How much quota the stored covers need, and which setting of a rate limit is too low for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from refresher.domain.claiming import chunks_of
from refresher.domain.due import DuePolicy, seconds_ahead
from refresher.domain.pacing import APP_REACH_SECONDS, WINDOW_SECONDS, Pace, step_seconds
from refresher.domain.spans import counted

#: Above this share of a limit, one bad hour is not made up for.
CROWDED: Final = 0.8
TOKEN_LIMIT: Final = "REFRESHER_RATE_LIMIT_PER_TOKEN"  # noqa: S105 - the name of a setting
APP_LIMIT: Final = "REFRESHER_RATE_LIMIT_PER_APP"


@dataclass(frozen=True, slots=True)
class Demand:
    """The covers of the active accounts, and what is known of the quota for them."""

    #: Chunks of all their videos together.
    chunks: int
    #: Videos of the account with the most, and its open_id.
    most_videos: int
    largest: str
    #: How long covers live.
    life_seconds: float
    policy: DuePolicy
    pace: Pace
    #: The app's limit in requests a minute, as found after 429s; None: no such limit is in force.
    found_per_minute: float | None


@dataclass(frozen=True, slots=True)
class Needed:
    """What somebody needs to keep covers alive, in requests a minute."""

    #: Who, as the beginning of a sentence.
    whose: str
    #: To ask for each chunk once in a life, as it falls due: lead and spread stay in reserve.
    when_due: float
    #: To ask for each just before it dies. With less, covers die.
    least: float


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate limit, and what is needed of it. In requests a minute."""

    setting: str
    needed: Needed
    #: Slots have a distance that keeps to the limit, so this is a little less than the setting.
    allowed: float
    #: TikTok allows less than is set, as 429s have shown: the setting does not help.
    found: bool = False

    @property
    def share(self) -> float:
        """The part of it that is needed as covers fall due. Above 1 they are asked for late."""
        return self.needed.when_due / self.allowed

    @property
    def is_deadly(self) -> bool:
        """Covers die of it, however late they are asked for."""
        return self.needed.least > self.allowed

    @property
    def told(self) -> str:
        """Who needs how much, of whose limit, and what comes of it."""
        limit = "TikTok" if self.found else self.setting
        told = (
            f"{self.needed.whose} {self.needed.when_due:,.1f} requests a minute as covers fall"
            f" due, {self.share:.0%} of the {self.allowed:,.1f} that {limit} allows"
        )
        if self.is_deadly:
            return f"{told}. Covers will die: they need {self.needed.least:,.1f} at the least"
        if self.share > 1:
            return f"{told}. Covers are asked for late: little is in reserve"
        return told

    @property
    def remedy(self) -> str:
        if self.found:
            wanted = enough(self.setting, self.needed.when_due)
            return f"ask TikTok for {wanted:,} requests a minute"
        return raised(self.setting, self.needed.when_due)


def raised(setting: str, needed: float) -> str:
    """The advice to set a limit so high that it is not crowded by so many requests a minute."""
    return f"set {setting} to {enough(setting, needed)} or more, if TikTok allows as much"


def enough(setting: str, needed: float) -> int:
    """What a setting has to be, so that so many requests a minute do not crowd it."""
    reach_seconds = APP_REACH_SECONDS if setting == APP_LIMIT else 0.0
    # As many times as many slots as a limit of one has.
    return ceil(needed / CROWDED * step_seconds(1, reach_seconds) / WINDOW_SECONDS) or 1


def needed_by(
    whose: str, chunks: float, policy: DuePolicy, account_spread: float, life_seconds: float
) -> Needed:
    """By whom so many chunks are kept alive, whose covers live so long."""
    a_life = WINDOW_SECONDS * chunks
    period = life_seconds - seconds_ahead(policy, account_spread, life_seconds)
    return Needed(whose, a_life / period, a_life / life_seconds)


def needed_by_largest(demand: Demand) -> Needed:
    """By the account with the most videos, the first that a token's limit does not keep alive."""
    whose = f"account {demand.largest} with {counted(demand.most_videos, 'video')} needs"
    chunks = chunks_of(demand.most_videos)
    return needed_by(whose, chunks, demand.policy, 1.0, demand.life_seconds)


def needed_by_all(demand: Demand) -> Needed:
    """By all active accounts."""
    whose = "all accounts together need"
    return needed_by(whose, demand.chunks, demand.policy, 0.5, demand.life_seconds)


def limit_of_token(pace: Pace, needed: Needed) -> Limit | None:
    """None where there is no limit."""
    limit = pace.limit_per_token
    return Limit(TOKEN_LIMIT, needed, WINDOW_SECONDS / step_seconds(limit)) if limit else None


def limit_of_app(pace: Pace, found: float | None, needed: Needed) -> Limit | None:
    """The lower of the limit that is set and the one that was found; None where there is none."""
    step = pace.app_step_seconds
    allowed = WINDOW_SECONDS / step if step else None
    if found is not None and (allowed is None or found < allowed):
        return Limit(APP_LIMIT, needed, found, found=True)
    return None if allowed is None else Limit(APP_LIMIT, needed, allowed)


def limits(pace: Pace, found: float | None, of_token: Needed, of_app: Needed) -> Sequence[Limit]:
    """Those in force, the first to bind first: covers die of it, or it is needed most."""
    both = (limit_of_token(pace, of_token), limit_of_app(pace, found, of_app))
    in_force = filter(None, both)
    return sorted(in_force, key=lambda limit: (limit.is_deadly, limit.share), reverse=True)


def limits_for(demand: Demand) -> Sequence[Limit]:
    """The same for the active accounts."""
    needed = needed_by_largest(demand), needed_by_all(demand)
    return limits(demand.pace, demand.found_per_minute, *needed)


def advice(limits: Sequence[Limit]) -> str:
    """What to do about each limit that is too low, or else about the first to bind."""
    too_low = [limit.remedy for limit in limits if limit.share > 1]
    return ", and ".join(too_low or [limits[0].remedy])
