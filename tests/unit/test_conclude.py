"""What a claim's failures mean for its account."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations

import pytest

from refresher.domain.errors import (
    AccessTokenRefused,
    QueryRefused,
    ScopeRefused,
    Throttled,
    UpstreamFailed,
)
from refresher.domain.model import (
    Claim,
    LastFailure,
    OpenId,
    Park,
    Release,
    Sample,
    TokenStanding,
    VideoId,
)
from refresher.domain.pacing import DatabaseTime, pause_seconds, retry_seconds
from tests.outcomes import conclude

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
ANA = OpenId("ana")
TOKEN = "act.ana"
EPOCH = 7
GENERATION = 3
CHANCE = 0.5
FAILED = UpstreamFailed("internal_error", status=500)


def claim(failures=0, **token):
    time = DatabaseTime(NOW, 0.0)
    return Claim(
        ANA, TOKEN, EPOCH, NOW, failures, [], NOW, 0.1, time, TokenStanding(GENERATION, **token)
    )


def throttled(retry_after_seconds=None):
    return Throttled(
        "rate_limit_exceeded", status=429, log_id="", retry_after_seconds=retry_after_seconds
    )


def test_without_errors_the_account_is_in_good_health():
    """Failures of the past are forgotten: nothing delays the next claim."""
    assert conclude(claim(failures=9), [], CHANCE) == Release(ANA, EPOCH, GENERATION)


@pytest.mark.parametrize("failures", [0, 3])
def test_a_failure_backs_off(failures):
    """One more failed claim in a row, however many chunks failed: a longer back-off, no pause."""
    release = conclude(claim(failures), [FAILED, FAILED], CHANCE)
    retry = retry_seconds(failures + 1, CHANCE)
    assert replace(release, last_failure=None) == Release(
        ANA, EPOCH, GENERATION, failures=failures + 1, retry_seconds=retry
    )


@pytest.mark.parametrize(
    ("wishes", "pause"),
    [([None], pause_seconds(1, CHANCE, None)), ([40.0], 40.0), ([None, 20.0, 40.0, 30.0], 40.0)],
    ids=["no-wish", "one-wish", "the-longest-wish"],
)
def test_a_throttle_pauses(wishes, pause):
    """429 moves the next slot, by as much as any of the replies wishes."""
    release = conclude(claim(failures=1), [FAILED, *map(throttled, wishes)], CHANCE)
    assert (release.failures, release.pause_seconds, release.park) == (2, pause, None)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (AccessTokenRefused("access_token_invalid", status=401), "needs_reauthorization"),
        (ScopeRefused("scope_not_authorized", status=401), "needs_scope"),
    ],
    ids=["token", "scope"],
)
def test_a_refused_credential_parks(error, state):
    """In whatever order the answers came, a 429 or a 500 never hides a 401."""
    for errors in permutations([error, throttled(), FAILED]):
        release = conclude(claim(), errors, CHANCE)
        assert release.park == Park(state, error.code)


def test_neither_claim_nor_park_shows_the_token():
    """A token is never in a repr."""
    release = conclude(claim(), [AccessTokenRefused("access_token_invalid", status=401)], CHANCE)
    assert TOKEN not in repr(claim()) + repr(release)


def test_a_few_failures_of_many_slow_nothing_down():
    """Where any chunk was answered, failures do not add up, and the wait stays short."""
    release = conclude(claim(failures=7), [FAILED], 0.5, answered=True)
    assert (release.failures, release.retry_seconds) == (1, retry_seconds(1, 0.5))


def test_a_refused_query_is_no_affair_of_the_account():
    """Its videos wait, the account does not. It is only remembered."""
    release = conclude(claim(), [QueryRefused("invalid_params", status=400)], 0.5)
    assert release.last_failure == LastFailure("invalid_params", 400, None)
    assert replace(release, last_failure=None) == conclude(claim(), [], 0.5)


def test_the_failure_that_parks_is_the_one_to_remember():
    """Else the last one; what never came has no status and no log_id."""
    refused = AccessTokenRefused("access_token_invalid", status=401, log_id="2026")
    silence = UpstreamFailed("timed_out")
    release = conclude(claim(), [FAILED, refused, silence], 0.5)
    assert release.last_failure == LastFailure("access_token_invalid", 401, "2026")
    assert conclude(claim(), [FAILED, silence], 0.5).last_failure == LastFailure(
        "timed_out", None, None
    )
    assert conclude(claim(), [], 0.5).last_failure is None


def test_the_requests_sent_are_told():
    """For the quota, in good health as in bad."""
    assert conclude(claim(), [], 0.5, requests=3).requests == 3
    assert conclude(claim(), [FAILED], 0.5, requests=3).requests == 3


@pytest.mark.parametrize(
    ("all_videos", "told"), [(25, True), (26, False), (None, False)], ids=["all", "some", "unknown"]
)
def test_samples_are_told_only_where_they_speak_for_the_whole_account(all_videos, told):
    """Otherwise there are videos of which they say nothing."""
    samples = [Sample(VideoId("1"), 20), Sample(VideoId("2"), 5)]
    release = conclude(replace(claim(), all_videos=all_videos), [], 0.5, samples=samples)
    assert release.samples == (samples if told else ())


def test_an_account_without_videos_has_no_samples():
    """It is counted."""
    assert conclude(replace(claim(), all_videos=0), [], 0.5).samples == ()
