"""What a claim's failures mean for its account: back-off, pause, renewed token or park."""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Final

from refresher.domain.answers import Failure, Reaction
from refresher.domain.errors import UpstreamError
from refresher.domain.model import Claim, LastFailure, Park, Release, Sample
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
    failures: Sequence[Failure],
    chance: float,
    *,
    answered: bool = False,
    unsaved: bool = False,
    requests: int = 0,
    samples: Sequence[Sample] = (),
    by_itself: bool = False,
    nobody_answered: bool = False,
) -> Release:
    """The release of a claim whose requests met `failures`; none: the account is in good health.

    A refused credential outweighs a throttle: a 429 never hides a 401. A day's quota that is spent
    pauses, too, but tells nothing of the rate. Both always add to the failures in a row.
    Other failures do not add up where a chunk was `answered`, so a few of many hardly slow an
    account down, and not while `nobody_answered`. An account that fails `by_itself` is isolated
    after a few. `unsaved`: rows are locked, and asking again at once would burn quota. `samples`
    are of all new covers that were stored. `chance` in [0, 1) is the jitter.
    """
    pause = max((_pause_seconds(claim, failure, chance) for failure in failures), default=0.0)
    after = _back_off(
        claim,
        failures,
        chance,
        answered=answered,
        paused=bool(pause) or unsaved,
        by_itself=by_itself,
        nobody_answered=nobody_answered,
    )
    park = _park(failures)
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
        passed_over=claim.unfinished and not claim.videos and not failures,
        quota_spent=any(failure.reaction is Reaction.WAIT for failure in failures),
        refused=any(failure.reaction is Reaction.RENEW for failure in failures),
        requests=requests,
        isolated_reason=_reason(claim, failures) if after.isolated and not park else None,
        last_failure=_last(failures),
        samples=samples if _are_of_all(claim, samples) else (),
    )


def _back_off(
    claim: Claim,
    met: Sequence[Failure],
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
    if any(failure.meaning.counted for failure in met):
        if answered:
            return BackOff(1, isolated=False, seconds=retry_seconds(1, chance))
        return back_off(
            claim.failures,
            chance,
            isolated=isolated,
            by_itself=by_itself,
            nobody_answered=nobody_answered,
        )
    # Nothing was asked for after all: the account stays as it was.
    as_it_was = isolated or bool(claim.videos and not met and not answered)
    return BackOff(claim.failures if as_it_was else 0, isolated, 0.0)


def _reason(claim: Claim, failures: Sequence[Failure]) -> str | None:
    """Why the account is isolated, by its latest failure."""
    failed = [failure.error for failure in failures if failure.reaction is Reaction.RETRY]
    return _named(failed[-1]) if failed else claim.isolated_reason


def _last(failures: Sequence[Failure]) -> LastFailure | None:
    """The last failure, or the one that parks the account."""
    if not failures:
        return None
    parking = [failure for failure in failures if failure.reaction in PARKED_STATES]
    error = (parking[:1] or failures)[-1].error
    return LastFailure(error.code, error.status or None, error.log_id or None)


def _named(error: UpstreamError) -> str:
    """Code, status and log_id."""
    status = f"HTTP {error.status}" if error.status else "no answer"
    log_id = f", log_id {error.log_id}" if error.log_id else ""
    return f"{error.code}, {status}{log_id}"


def _are_of_all(claim: Claim, samples: Sequence[Sample]) -> bool:
    return sum([sample.videos for sample in samples]) == claim.all_videos != 0


def _pause_seconds(claim: Claim, failure: Failure, chance: float) -> float:
    wish = failure.error.retry_after_seconds
    match failure.reaction:
        case Reaction.PAUSE:
            return pause_seconds(claim.failures, chance, wish)
        case Reaction.WAIT:
            return quota_pause_seconds(claim.failures, chance, claim.time.now, wish)
        case _:
            return 0.0


def _park(failures: Sequence[Failure]) -> Park | None:
    for failure in failures:
        if state := PARKED_STATES.get(failure.reaction):
            return Park(state, failure.error.code)
    return None


def conclude_token(
    claim: Claim,
    failure: Failure | None,
    chance: float,
    retry: float,
    *,
    whose: Whose = Whose.UNKNOWN,
) -> Release:
    """The release of a claim that was for the token alone; `failure` is what its renewal met.

    It is tried again in `retry` seconds, or later where the reply asks for it. A token that still
    lives is used meanwhile. The account of a dead token waits as long as the token; after a few
    failures of its own it is isolated, and waits no less than an isolated account does.
    """
    release = conclude(claim, [failure] if failure else [], chance)
    if failure is None:
        return replace(release, failures=claim.failures)
    if release.park:
        return release
    waiting = Release(
        claim.open_id,
        claim.lease_epoch,
        claim.token.generation,
        failures=claim.failures,
        retry_seconds=0.0,
        token_retry_seconds=_token_retry_seconds(claim, failure, chance, retry),
        isolated_reason=claim.isolated_reason,
        last_failure=release.last_failure,
    )
    if not claim.token.dead:
        return waiting
    return _with_a_dead_token(claim, waiting, failure, chance, whose)


def _token_retry_seconds(claim: Claim, failure: Failure, chance: float, retry: float) -> float:
    wish = failure.error.retry_after_seconds
    match failure.reaction:
        case Reaction.PAUSE:
            return max(retry, wished_seconds(wish))
        case Reaction.WAIT:
            return quota_pause_seconds(claim.token.failures, chance, claim.time.now, wish)
        case _:
            return retry


def _with_a_dead_token(
    claim: Claim, waiting: Release, failure: Failure, chance: float, whose: Whose
) -> Release:
    """The account waits as long as its token, and longer where it is isolated."""
    isolated = claim.isolated_since is not None
    is_own = whose is Whose.OWN and failure.reaction is Reaction.RETRY
    # An isolated account's wait grows with its own failures only.
    counts = failure.meaning.counted and whose is not Whose.ANOTHERS and not isolated
    is_counted = is_own or counts
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
        isolated_reason=(
            _named(failure.error) if after.isolated and is_own else claim.isolated_reason
        ),
    )
