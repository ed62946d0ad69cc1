"""What is stored of an account and of a video of it, and what the claim's conditions say of them.

The statement `explain` reads it. Times are the database's; None for those that never come.
"""

from dataclasses import dataclass, field
from datetime import datetime

from refresher.domain.model import OpenId
from refresher.domain.quota import Limit


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """An account's row without its tokens, and what a claim would find of it."""

    open_id: OpenId
    state: str
    state_reason: str | None
    state_since: datetime
    #: The end of the user's consent.
    refresh_token_expires_at: datetime | None
    scope: str | None
    has_access_token: bool
    has_refresh_token: bool
    access_token_expires_at: datetime | None
    token_standing: str
    token_failures: int
    token_open_id: str | None
    token_due_at: datetime | None
    token_request_until: datetime | None
    lease_owner: str | None
    lease_expires_at: datetime | None
    failures: int
    isolated_since: datetime | None
    isolated_reason: str | None
    next_slot_at: datetime | None
    #: None: awake since nobody knows when, or asleep for good; `awake` tells them apart.
    wake_at: datetime | None
    rate_lowered_at: datetime | None
    requests_since: datetime | None
    requests: int
    #: Counts of the last release or audit.
    videos: int
    valid: int
    expired: int
    uncovered: int | None
    missing: int | None
    unreachable: int
    earliest_due_at: datetime | None
    last_failure_at: datetime | None
    last_failure_code: str | None
    last_failure_http_status: int | None
    last_failure_log_id: str | None
    #: It is time to work it.
    awake: bool
    #: Nobody has a lease.
    free: bool
    #: Its next slot is one that a claim may reserve now.
    slot_near: bool
    #: It pauses after a 429, of a minute or of a day.
    throttled: bool
    #: It is not claimed before its token request succeeds or may be repeated.
    waits_for_token: bool
    #: Not to be sent any more.
    token_dead: bool
    #: All conditions of the claim together.
    claimable: bool
    #: Of the rate limit, now.
    rate_share: float
    #: Between two of its slots.
    step_seconds: float
    #: Accounts that a claim takes before it; 0 where it is not claimable.
    accounts_ahead: int
    #: What these need if all their videos are due.
    requests_ahead: int

    @property
    def left_out(self) -> int:
        """Its videos that are missing or gone; the gone ones are not known unless it is active."""
        gone = self.unreachable if self.state == "active" else 0
        return (self.missing or 0) + gone


@dataclass(frozen=True, slots=True)
class AppFacts:
    """What holds for all accounts together."""

    paused_since: datetime | None
    #: Between two of its slots; 0: no limit.
    step_seconds: float
    #: 429s have shown the limit; it was not configured.
    found: bool
    #: The requests a minute that they have shown. The pace grows from there.
    rate_found: float | None
    rate_lowered_at: datetime | None
    next_slot_at: datetime | None
    #: A slot of the app is free for a claim.
    has_room: bool
    #: When TikTok refused the app credentials in use; None: not lately, or we renew no token.
    client_refused_at: datetime | None


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """A video's row, and its turn in the next claim of its account."""

    id: str
    cover_image_url: str | None = field(repr=False)  # it holds its signature
    cover_expires_at: datetime | None
    refreshed_at: datetime | None
    missing_since: datetime | None
    gone_at: datetime | None
    due_at: datetime | None
    misses: int
    refusal: str | None
    #: A `claiming.Turn`; None: not asked for, whatever is.
    turn: int | None
    #: Due videos of the account that are asked for before it.
    ahead: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that an explanation needs."""

    now: datetime
    account: AccountFacts
    app: AppFacts
    #: None where only the account was asked about.
    video: VideoFacts | None
    #: We renew access tokens.
    managed: bool
    #: How long until a daemon looks for due accounts, at most.
    poll_seconds: float
    #: The limit of its token, and what its covers need of it; None: none, or not known.
    limit: Limit | None = None

    @property
    def too_low(self) -> Limit | None:
        """That limit, if its covers need more than it allows."""
        return self.limit if self.limit and self.limit.share > 1 else None
