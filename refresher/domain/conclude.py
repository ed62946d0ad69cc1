"""What a claim's failures mean for its account: back-off, pause or park."""

from collections.abc import Sequence

from refresher.domain.errors import AccessTokenRefused, ScopeRefused, Throttled, UpstreamError
from refresher.domain.model import Claim, Park, Release
from refresher.domain.pacing import pause_seconds, retry_seconds

NEEDS_REAUTHORIZATION = "needs_reauthorization"
NEEDS_SCOPE = "needs_scope"


def conclude(claim: Claim, errors: Sequence[UpstreamError], chance: float) -> Release:
    """The release of a claim whose chunks met `errors`; none: the account is in good health.

    A refused credential outweighs a throttle: a 429 never hides a 401.
    `chance` in [0, 1) is the jitter.
    """
    if not errors:
        return Release(claim.open_id, claim.lease_epoch)
    failures = claim.failures + 1
    retry = retry_seconds(failures, chance)
    pause = max(
        (
            pause_seconds(claim.failures, chance, error.retry_after_seconds)
            for error in errors
            if isinstance(error, Throttled)
        ),
        default=0.0,
    )
    return Release(
        claim.open_id,
        claim.lease_epoch,
        failures=failures,
        retry_seconds=retry,
        pause_seconds=pause,
        park=next((park for error in errors if (park := _park(claim, error))), None),
    )


def _park(claim: Claim, error: UpstreamError) -> Park | None:
    match error:
        case AccessTokenRefused():
            return Park(NEEDS_REAUTHORIZATION, error.code, claim.access_token)
        case ScopeRefused():
            return Park(NEEDS_SCOPE, error.code, claim.access_token)
        case _:
            return None
