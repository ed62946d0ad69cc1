"""The fleet as it is stored, and what decides about its covers besides the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refresher.domain.cohorts import Fleet


@dataclass(frozen=True, slots=True)
class Life:
    """How long covers live that were obtained together."""

    expires_at: float
    #: From the moment at which they were stored.
    seconds: float
    covers: int


@dataclass(frozen=True, slots=True)
class Unasked:
    """Accounts that are not worked, all for the same reason: their covers die."""

    accounts: int
    #: That are alive.
    covers: int
    #: Unix time; None where no cover is alive.
    first_death_at: float | None


@dataclass(frozen=True, slots=True)
class Consents:
    """Consents of active accounts that end soon."""

    accounts: int
    #: Unix time; None where there are none.
    first_ends_at: float | None
    #: Living covers of these accounts.
    covers: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """What stands in the way of new access tokens now."""

    #: When TikTok refused the app credentials in use, in Unix time; None: not lately, or they renew
    #: no tokens.
    client_refused_at: float | None
    #: Active accounts whose last token request failed, and their living covers.
    accounts: int
    covers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """All that a forecast reads."""

    #: The accounts that are worked, or a sample of them.
    fleet: Fleet
    #: How many accounts and videos that stands for.
    accounts: int
    videos: int
    #: How many videos were read, where that is not all of them.
    sampled: int | None
    lives: Sequence[Life]
    #: The app's rate that was found by its 429s, in requests a minute; None: none is in force.
    app_rate: float | None
    #: Since when everything is paused, in Unix time.
    paused_since: float | None
    #: By the account's state, `isolated`, or `dead_token` where nobody renews it.
    unasked: Mapping[str, Unasked]
    consents: Consents
    tokens: Tokens
