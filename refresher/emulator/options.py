"""How the emulated TikTok behaves, and the faults that can be ordered."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Final, Literal, TypeVar

WINDOW_SECONDS: Final = 60
HOUR_SECONDS: Final = 3600
DAY_SECONDS: Final = 24 * HOUR_SECONDS
REFRESH_TOKEN_TTL_SECONDS: Final = 180 * DAY_SECONDS
CODE_LIFE_SECONDS: Final = 300
DEFAULT_SCOPE: Final = "user.info.basic,video.list"


Fault = Literal["throttled", "failed", "timeout", "malformed"]
TokenFault = Literal["failed", "timeout", "cut", "malformed"]
AnyFault = TypeVar("AnyFault", Fault, TokenFault)

Silence = Literal["hang", "cut"]
"""No answer: nothing at all until the client goes away, or the connection is closed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """How the emulated TikTok behaves.

    Shares are parts of 1 of the otherwise good queries, or token requests where they say so.
    """

    cover_ttl: int | Literal["hourly"] = 21600
    """Seconds, or `hourly`: the time of the answer rounded down to the hour, plus a day."""
    covers_die_early_seconds: int = 0
    """Covers are served only until so long before `x-expires`. Not documented."""
    access_token_ttl_seconds: int = 2 * HOUR_SECONDS
    refresh_token_rotation: Literal["strict", "lenient"] = "strict"  # noqa: S105 - a mode
    """What becomes of a refresh token once used: strict, it dies; lenient, it goes on working."""
    old_access_tokens: Literal["live", "die"] = "live"
    """What becomes of the account's earlier access tokens when a pair is renewed.

    Not documented. Those that live expire by themselves.
    """
    rate_limit_per_token: int = 600
    """Requests in any 60 s; 0 = no such limit."""
    rate_limit_per_app: int = 0
    retry_after_seconds: int | None = None
    """Sent with every 429; None: not sent. Not documented and never seen."""
    latency_seconds: float = 0
    """Before each answer, and before each cut."""
    slow_share: float = 0
    """Of all queries, good or bad: their answers come `slow_seconds` later."""
    slow_seconds: float = 5
    throttled_share: float = 0
    failed_share: float = 0
    timeout_share: float = 0
    malformed_share: float = 0
    token_failed_share: float = 0
    """Nothing is renewed and the refresh token goes on working."""
    token_timeout_share: float = 0
    """Renewed, but the answer never comes. Here and below, the new pair reaches nobody."""
    token_cut_share: float = 0
    token_malformed_share: float = 0
    missing_share: float = 0
    """Of the video IDs, always the same ones: every answer leaves them out."""
    seed: int = 0
    client_key: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    public_url: str | None = None
    """The base of cover URLs; None: where the query was sent to."""

    def __post_init__(self) -> None:
        if self.cover_ttl != "hourly" and self.cover_ttl < 1:
            raise ValueError(f"expected cover_ttl >= 1 or 'hourly', not {self.cover_ttl}")
        if self.access_token_ttl_seconds < 1:
            raise ValueError(
                f"expected access_token_ttl_seconds >= 1, not {self.access_token_ttl_seconds}"
            )
        for name in NOT_NEGATIVE:
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"expected {name} >= 0, not {getattr(self, name)}")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"expected {name} between 0 and 1, not {getattr(self, name)}")
        _check_sum(share for _, share in self.faults)
        _check_sum(share for _, share in self.token_faults)

    @property
    def faults(self) -> tuple[tuple[Fault, float], ...]:
        return (
            ("throttled", self.throttled_share),
            ("failed", self.failed_share),
            ("timeout", self.timeout_share),
            ("malformed", self.malformed_share),
        )

    @property
    def token_faults(self) -> tuple[tuple[TokenFault, float], ...]:
        return (
            ("failed", self.token_failed_share),
            ("timeout", self.token_timeout_share),
            ("cut", self.token_cut_share),
            ("malformed", self.token_malformed_share),
        )


NOT_NEGATIVE: Final = (
    "covers_die_early_seconds",
    "latency_seconds",
    "slow_seconds",
    "retry_after_seconds",
    "rate_limit_per_token",
    "rate_limit_per_app",
)
SHARES: Final = tuple(each.name for each in fields(EmulatorOptions) if each.name.endswith("_share"))


def _check_sum(shares: Iterable[float]) -> None:
    """Raise `ValueError` where the faults of one request share more than 1."""
    if (total := math.fsum(shares)) > 1:
        raise ValueError(f"expected the faults to share at most 1, not {total}")
