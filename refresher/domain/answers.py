"""What each answer of the API means where it brings no covers: the one place that decides it.

docs/answers.md is this as a table; a test holds the two to each other. What becomes of the single
videos of a good answer is `reconcile`'s to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
    DailyQuotaSpent,
    GrantRefused,
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
    RENEW = "access token refreshed before anything else is asked"
    REAUTHORIZE = "parked as needs_reauthorization"
    EXTEND_SCOPE = "parked as needs_scope"
    SUSPEND = "no token refreshed for a while"


@dataclass(frozen=True, slots=True)
class Meaning:
    """Whom an answer affects and what follows.

    `counted`: it is a failure of the account, whose back-off grows with it. `alive`: the API itself
    has spoken, so it is not down. `event` is what the log says of it; its level is the event's.
    """

    affects: Affects
    reaction: Reaction
    counted: bool
    alive: bool
    event: str


RETRY: Final = Meaning(
    Affects.CHUNK, Reaction.RETRY, counted=True, alive=False, event="chunk.failed"
)
#: TikTok's own word, though nobody has listed it: the host is there, this account fares ill.
SPOKEN: Final = Meaning(
    Affects.CHUNK, Reaction.RETRY, counted=True, alive=True, event="chunk.failed"
)
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


def meaning(error: UpstreamError, token: TokenStanding) -> Meaning:
    """What an answer means for an account whose token stands so."""
    if isinstance(error, AccessTokenRefused) and token.renewable and not token.renewed:
        return RENEW
    if error.spoken and error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return SPOKEN
    return MEANINGS.get(type(error), RETRY)
