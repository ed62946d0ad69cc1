"""What a claim's failures mean for its account: back-off, pause, token refresh or park."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from refresher.domain.answers import Meaning, Reaction, meaning
from refresher.domain.errors import DailyQuotaSpent, Throttled, UpstreamError
from refresher.domain.model import Claim, Park, Release, Sample
from refresher.domain.pacing import (
    growing_seconds,
    pause_seconds,
    quota_pause_seconds,
    retry_seconds,
    wished_seconds,
)

PARKED_STATES: Final = {
    Reaction.REAUTHORIZE: "needs_reauthorization",
    Reaction.EXTEND_SCOPE: "needs_scope",
}


def conclude(
    claim: Claim,
    errors: Sequence[UpstreamError],
    chance: float,
    *,
    answered: bool = False,
    unsaved: bool = False,
    requests: int = 0,
    samples: Sequence[Sample] = (),
) -> Release:
    """The release of a claim whose chunks met `errors`; none: the account is in good health.

    A refused credential outweighs a throttle: a 429 never hides a 401. A day's quota that is spent
    pauses, too, but tells nothing of the rate. Failures in a row count only where no chunk was
    `answered`, so a few of many do not slow an account down. `unsaved`: rows are locked, and asking
    again at once would burn quota. `samples` are of all new covers that were stored. `chance` in
    [0, 1) is the jitter.
    """
    meanings = [(error, meaning(error, claim.token)) for error in errors]
    pause = _pause_seconds(claim, errors, chance)
    failures = _failures(claim, counted=any(m.counted for _, m in meanings), answered=answered)
    if pause or unsaved:
        failures = claim.failures + 1
    retry = retry_seconds(failures, chance) if failures else 0.0
    return Release(
        claim.open_id,
        claim.lease_epoch,
        claim.token.generation,
        failures=failures,
        retry_seconds=growing_seconds(failures, chance) if unsaved else retry,
        pause_seconds=pause,
        park=_park(meanings),
        answered=answered,
        unfinished=claim.unfinished,
        passed_over=claim.unfinished and not claim.videos and not errors,
        quota_spent=any(isinstance(error, DailyQuotaSpent) for error in errors),
        refused=any(means.reaction is Reaction.RENEW for _, means in meanings),
        requests=requests,
        samples=samples if _are_of_all(claim, samples) else (),
    )


def _are_of_all(claim: Claim, samples: Sequence[Sample]) -> bool:
    return sum([sample.videos for sample in samples]) == claim.all_videos != 0


def _pause_seconds(claim: Claim, errors: Sequence[UpstreamError], chance: float) -> float:
    return max((_pause_after(claim, error, chance) for error in errors), default=0.0)


def _pause_after(claim: Claim, error: UpstreamError, chance: float) -> float:
    match error:
        case Throttled(retry_after_seconds=wish):
            return pause_seconds(claim.failures, chance, wish)
        case DailyQuotaSpent(retry_after_seconds=wish):
            return quota_pause_seconds(claim.failures, chance, claim.time.now, wish)
        case _:
            return 0.0


def _failures(claim: Claim, *, counted: bool, answered: bool) -> int:
    if not counted:
        return 0
    return 1 if answered else claim.failures + 1


def _park(meanings: Sequence[tuple[UpstreamError, Meaning]]) -> Park | None:
    for error, means in meanings:
        if state := PARKED_STATES.get(means.reaction):
            return Park(state, error.code)
    return None


def conclude_token(
    claim: Claim, error: UpstreamError | None, chance: float, retry: float
) -> Release:
    """The release of a claim that was for the token alone; `error` is what refreshing it met.

    After a failure it is tried again in `retry` seconds, later where the reply wishes so; a token
    that still lives is used meanwhile, the account of a dead one waits as long.
    """
    release = conclude(claim, [error] if error else [], chance)
    if error is None:
        return replace(release, failures=claim.failures)
    if release.park:
        return release
    if isinstance(error, Throttled):
        retry = max(retry, wished_seconds(error.retry_after_seconds))
    if isinstance(error, DailyQuotaSpent):
        retry = quota_pause_seconds(
            claim.token.failures, chance, claim.time.now, error.retry_after_seconds
        )
    return Release(
        claim.open_id,
        claim.lease_epoch,
        claim.token.generation,
        failures=claim.failures + claim.token.dead,
        retry_seconds=retry if claim.token.dead else 0.0,
        token_retry_seconds=retry,
    )
