"""What a claim's failures mean for its account."""

from datetime import UTC, datetime
from itertools import permutations

import pytest

from refresher.domain.conclude import conclude
from refresher.domain.errors import (
    AccessTokenRefused,
    QueryRefused,
    ScopeRefused,
    Throttled,
    UpstreamFailed,
)
from refresher.domain.model import Claim, OpenId, Park, Release
from refresher.domain.pacing import DatabaseTime, pause_seconds, retry_seconds

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
ANA = OpenId("ana")
TOKEN = "act.ana"
EPOCH = 7
CHANCE = 0.5
FAILED = UpstreamFailed("internal_error", status=500)


def claim(failures=0):
    time = DatabaseTime(NOW, 0.0)
    return Claim(ANA, TOKEN, EPOCH, NOW, failures, [], NOW, 0.1, time)


def throttled(retry_after_seconds=None):
    return Throttled(
        "rate_limit_exceeded", status=429, log_id="", retry_after_seconds=retry_after_seconds
    )


def test_without_errors_the_account_is_in_good_health():
    """Failures of the past are forgotten: nothing delays the next claim."""
    assert conclude(claim(failures=9), [], CHANCE) == Release(ANA, EPOCH)


@pytest.mark.parametrize("error", [FAILED, QueryRefused("invalid_params", status=400)])
@pytest.mark.parametrize("failures", [0, 3])
def test_a_failure_backs_off(error, failures):
    """One more failed claim in a row, however many chunks failed: a longer back-off, no pause."""
    release = conclude(claim(failures), [error, error], CHANCE)
    retry = retry_seconds(failures + 1, CHANCE)
    assert release == Release(ANA, EPOCH, failures=failures + 1, retry_seconds=retry)


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
        assert release.park == Park(state, error.code, TOKEN)


def test_neither_claim_nor_park_shows_the_token():
    """A token is never in a repr."""
    release = conclude(claim(), [AccessTokenRefused("access_token_invalid", status=401)], CHANCE)
    assert TOKEN not in repr(claim()) + repr(release)
