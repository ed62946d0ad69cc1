"""What a claim's failures mean for its account: back-off, pause, token refresh or park."""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Final

from refresher.domain.answers import Meaning, Reaction, meaning
from refresher.domain.errors import DailyQuotaSpent, Throttled, UpstreamError
from refresher.domain.model import Claim, Park, Release, Sample
from refresher.domain.pacing import (
    BackOff,
    back_off,
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


class Whose(Enum):
    """Whose failure a token request's is, as far as is known when it fails."""

    OWN = "the account's: others are answered"
    UNKNOWN = "counted for the account, but no proof"
    ANOTHERS = "nobody is answered, or it was not sent"


def conclude(
    claim: Claim,
    errors: Sequence[UpstreamError],
    chance: float,
    *,
    answered: bool = False,
    unsaved: bool = False,
    requests: int = 0,
    samples: Sequence[Sample] = (),
    by_itself: bool = False,
    nobody_answered: bool = False,
) -> Release:
    """The release of a claim whose chunks met `errors`; none: the account is in good health.

    A refused credential outweighs a throttle: a 429 never hides a 401. A day's quota that is spent
    pauses, too, but tells nothing of the rate. Failures in a row count only where no chunk was
    `answered`, so a few of many do not slow an account down, and not while `nobody_answered`; where
    the account fails `by_itself`, it is isolated after a few. `unsaved`: rows are locked, and
    asking again at once would burn quota. `samples` are of all new covers that were stored.
    `chance` in [0, 1) is the jitter.
    """
    meanings = [(error, meaning(error, claim.token)) for error in errors]
    pause = _pause_seconds(claim, errors, chance)
    after = _back_off(
        claim,
        meanings,
        chance,
        answered=answered,
        paused=bool(pause) or unsaved,
        by_itself=by_itself,
        nobody_answered=nobody_answered,
    )
    park = _park(meanings)
    return Release(
        claim.open_id,
        claim.lease_epoch,
        claim.token.generation,
        failures=after.failures,
        retry_seconds=growing_seconds(after.failures, chance) if unsaved else after.seconds,
        pause_seconds=pause,
        park=park,
        answered=answered,
        unfinished=claim.unfinished,
        passed_over=claim.unfinished and not claim.videos and not errors,
        quota_spent=any(isinstance(error, DailyQuotaSpent) for error in errors),
        refused=any(means.reaction is Reaction.RENEW for _, means in meanings),
        requests=requests,
        isolated_reason=_reason(claim, meanings) if after.isolated and not park else None,
        samples=samples if _are_of_all(claim, samples) else (),
    )


def _back_off(
    claim: Claim,
    meanings: Sequence[tuple[UpstreamError, Meaning]],
    chance: float,
    *,
    answered: bool,
    paused: bool,
    by_itself: bool,
    nobody_answered: bool,
) -> BackOff:
    isolated = claim.isolated_since is not None and not answered
    if paused:
        failures = claim.failures + 1
        return BackOff(failures, isolated, retry_seconds(failures, chance))
    if any(means.counted for _, means in meanings):
        if answered:
            return BackOff(1, isolated=False, seconds=retry_seconds(1, chance))
        return back_off(
            claim.failures,
            chance,
            isolated=isolated,
            by_itself=by_itself,
            nobody_answered=nobody_answered,
        )
    # One that was asked for nothing after all is as it was.
    as_it_was = isolated or bool(claim.videos and not meanings and not answered)
    return BackOff(claim.failures if as_it_was else 0, isolated, 0.0)


def _reason(claim: Claim, meanings: Sequence[tuple[UpstreamError, Meaning]]) -> str | None:
    """Why the account is isolated, by its latest failure."""
    failed = [error for error, means in meanings if means.reaction is Reaction.RETRY]
    return _named(failed[-1]) if failed else claim.isolated_reason


def _named(error: UpstreamError) -> str:
    """Code, status and log_id."""
    status = f"HTTP {error.status}" if error.status else "no answer"
    log_id = f", log_id {error.log_id}" if error.log_id else ""
    return f"{error.code}, {status}{log_id}"


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


def _park(meanings: Sequence[tuple[UpstreamError, Meaning]]) -> Park | None:
    for error, means in meanings:
        if state := PARKED_STATES.get(means.reaction):
            return Park(state, error.code)
    return None


def conclude_token(
    claim: Claim,
    error: UpstreamError | None,
    chance: float,
    retry: float,
    *,
    whose: Whose = Whose.UNKNOWN,
) -> Release:
    """The release of a claim that was for the token alone; `error` is what refreshing it met.

    After a failure it is tried again in `retry` seconds, later where the reply wishes so; a token
    that still lives is used meanwhile, the account of a dead one waits as long; after a few that
    are its own it is isolated. An isolated one waits no less than it would.
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
    waiting = Release(
        claim.open_id,
        claim.lease_epoch,
        claim.token.generation,
        failures=claim.failures,
        retry_seconds=0.0,
        token_retry_seconds=retry,
        isolated_reason=claim.isolated_reason,
    )
    return _with_a_dead_token(claim, waiting, error, chance, whose) if claim.token.dead else waiting


def _with_a_dead_token(
    claim: Claim, waiting: Release, error: UpstreamError, chance: float, whose: Whose
) -> Release:
    """The account waits as long as its token, and longer where it is isolated."""
    isolated = claim.isolated_since is not None
    means = meaning(error, claim.token)
    is_own = whose is Whose.OWN and means.reaction is Reaction.RETRY
    # An isolated account's wait grows with its own failures only.
    is_counted = is_own or (means.counted and whose is not Whose.ANOTHERS and not isolated)
    after = back_off(
        claim.failures,
        chance,
        isolated=isolated,
        by_itself=is_own,
        nobody_answered=not is_counted,
    )
    retry = waiting.token_retry_seconds
    if after.isolated:
        retry = max(retry, after.seconds)
    return replace(
        waiting,
        failures=after.failures if is_counted else claim.failures,
        retry_seconds=retry,
        token_retry_seconds=retry,
        isolated_reason=_named(error) if after.isolated and is_own else claim.isolated_reason,
    )
