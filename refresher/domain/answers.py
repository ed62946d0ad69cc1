"""What a failed request means. This is the only place that decides it.

docs/answers.md has the same as a table; a test compares the two. `reconcile` decides what becomes
of the videos of a good answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
    DailyQuotaSpent,
    GrantRefused,
    NotSent,
    QueryRefused,
    ScopeRefused,
    Throttled,
    TokenRequestFailed,
    UpstreamError,
    UpstreamFailed,
)
from refresher.domain.model import TokenStanding


class Affects(StrEnum):
    """Whom an answer speaks of."""

    CHUNK = "chunk"
    ACCOUNT = "account"
    APP = "app"


class Reaction(StrEnum):
    """What is done about it."""

    RETRY = "retried after a back-off"
    BISECT = "bisected until the refused ID stands alone"
    PAUSE = "paused, its rate lowered"
    WAIT = "paused until a day's quota can have changed"
    RENEW = "access token renewed before anything else is asked"
    REAUTHORIZE = "parked as needs_reauthorization"
    EXTEND_SCOPE = "parked as needs_scope"
    SUSPEND = "no token renewed for a while"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What follows from an answer."""

    affects: Affects
    reaction: Reaction
    #: A failure of the account: its back-off grows.
    counted: bool
    #: TikTok itself has answered, so it is not down.
    alive: bool
    #: What the log says; the event has its level.
    event: str
    #: Nobody knows what became of the request: it may have been carried out.
    unclear: bool = False


RETRY: Final = Meaning(
    Affects.CHUNK, Reaction.RETRY, counted=True, alive=False, event="chunk.failed", unclear=True
)
#: A code in TikTok's own error object that is not in our table: TikTok is there.
SPOKEN: Final = replace(RETRY, alive=True)
RENEW: Final = Meaning(
    Affects.ACCOUNT, Reaction.RENEW, counted=False, alive=True, event="chunk.failed"
)
MEANINGS: Final[Mapping[type[UpstreamError], Meaning]] = {
    AccessTokenRefused: Meaning(
        Affects.ACCOUNT, Reaction.REAUTHORIZE, counted=True, alive=True, event="account.parked"
    ),
    ScopeRefused: Meaning(
        Affects.ACCOUNT, Reaction.EXTEND_SCOPE, counted=True, alive=True, event="account.parked"
    ),
    Throttled: Meaning(
        Affects.ACCOUNT, Reaction.PAUSE, counted=True, alive=True, event="account.throttled"
    ),
    DailyQuotaSpent: Meaning(
        Affects.ACCOUNT, Reaction.WAIT, counted=True, alive=True, event="account.throttled"
    ),
    QueryRefused: Meaning(
        Affects.CHUNK, Reaction.BISECT, counted=False, alive=True, event="chunk.failed"
    ),
    UpstreamFailed: RETRY,
    NotSent: replace(RETRY, unclear=False),
    GrantRefused: Meaning(
        Affects.ACCOUNT, Reaction.REAUTHORIZE, counted=True, alive=True, event="account.parked"
    ),
    ClientRefused: Meaning(
        Affects.APP, Reaction.SUSPEND, counted=False, alive=True, event="client.refused"
    ),
    TokenRequestFailed: Meaning(
        Affects.ACCOUNT, Reaction.RETRY, counted=True, alive=True, event="token.failed"
    ),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed, and what that means."""

    error: UpstreamError
    meaning: Meaning

    @property
    def reaction(self) -> Reaction:
        return self.meaning.reaction

    @property
    def throttled(self) -> bool:
        """A rate limit or a day's quota was met."""
        return self.reaction in (Reaction.PAUSE, Reaction.WAIT)


def understood(error: UpstreamError, token: TokenStanding) -> Failure:
    """What a failed request means for an account whose token stands so."""
    return Failure(error, _meaning(error, token))


def _meaning(error: UpstreamError, token: TokenStanding) -> Meaning:
    if isinstance(error, AccessTokenRefused) and token.renewable and not token.renewed:
        return RENEW
    if error.spoken and error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return SPOKEN
    return MEANINGS.get(type(error), RETRY)
