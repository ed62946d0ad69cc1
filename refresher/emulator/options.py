"""How the emulated TikTok behaves, and the faults that can be ordered."""

import math
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

WINDOW_SECONDS: Final = 60
HOUR_SECONDS: Final = 3600
DAY_SECONDS: Final = 24 * HOUR_SECONDS
REFRESH_TOKEN_TTL_SECONDS: Final = 180 * DAY_SECONDS
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
        for name in (
            "covers_die_early_seconds",
            "latency_seconds",
            "slow_seconds",
            "retry_after_seconds",
        ):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"expected {name} >= 0, not {getattr(self, name)}")
        _check_shares(self.missing_share)
        _check_shares(self.slow_share)
        _check_shares(*(share for _, share in self.faults))
        _check_shares(*(share for _, share in self.token_faults))

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


def _check_shares(*shares: float) -> None:
    """Raise `ValueError` unless each is between 0 and 1, and their sum is, too."""
    for share in shares:
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share between 0 and 1, not {share}")
    if math.fsum(shares) > 1:
        raise ValueError(f"expected the faults to share at most 1, not {math.fsum(shares)}")
