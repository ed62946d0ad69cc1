"""What a claim's failures mean for its account: back-off, pause or park."""

from collections.abc import Sequence

from refresher.domain.errors import (
    AccessTokenRefused,
    QueryRefused,
    ScopeRefused,
    Throttled,
    UpstreamError,
)
from refresher.domain.model import Claim, Park, Release
from refresher.domain.pacing import pause_seconds, retry_seconds

NEEDS_REAUTHORIZATION = "needs_reauthorization"
NEEDS_SCOPE = "needs_scope"


def conclude(
    claim: Claim,
    errors: Sequence[UpstreamError],
    chance: float,
    *,
    answered: bool = False,
    requests: int = 0,
) -> Release:
    """The release of a claim whose chunks met `errors`; none: the account is in good health.

    A refused credential outweighs a throttle: a 429 never hides a 401. Failures in a row count only
    where no chunk was `answered`, so a few of many do not slow an account down. A refused query is
    its videos' affair, not the account's. `chance` in [0, 1) is the jitter.
    """
    grave = [error for error in errors if not isinstance(error, QueryRefused)]
    if not grave:
        return Release(claim.open_id, claim.lease_epoch, requests=requests)
    failures = 1 if answered else claim.failures + 1
    pause = max(
        (
            pause_seconds(claim.failures, chance, error.retry_after_seconds)
            for error in grave
            if isinstance(error, Throttled)
        ),
        default=0.0,
    )
    return Release(
        claim.open_id,
        claim.lease_epoch,
        failures=claim.failures + 1 if pause else failures,
        retry_seconds=retry_seconds(failures, chance),
        pause_seconds=pause,
        park=next((park for error in grave if (park := _park(claim, error))), None),
        requests=requests,
    )


def _park(claim: Claim, error: UpstreamError) -> Park | None:
    match error:
        case AccessTokenRefused():
            return Park(NEEDS_REAUTHORIZATION, error.code, claim.access_token)
        case ScopeRefused():
            return Park(NEEDS_SCOPE, error.code, claim.access_token)
        case _:
            return None
