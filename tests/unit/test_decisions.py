"""Properties of the small decisions: token renewals, videos refused alone."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.due import FIRST_WAIT_AFTER_REFUSAL, LONGEST_WAIT, wait_after_refusal
from refresher.domain.errors import (
    ClientRefused,
    GrantRefused,
    ScopeRefused,
    TokenRequestFailed,
    UpstreamFailed,
)
from refresher.domain.model import Claim, OpenId, Release, TokenStanding, Video, VideoId
from refresher.domain.pacing import (
    FIRST_PAUSE_SECONDS,
    LONGEST_GROWING_SECONDS,
    DatabaseTime,
    growing_seconds,
)
from refresher.domain.reconcile import MOST_MISSES, refused_alone
from refresher.domain.token_renewal import LARGEST_SHARE_OF_LIFE, MARGIN_SECONDS, renew_in_seconds
from tests.outcomes import conclude_token

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
HAIR = 1e-6
shares = st.floats(0, 1, exclude_max=True)
failures = st.integers(0, 10_000)
misses = st.integers(0, 2**15)

# --- When a token is refreshed ---


@given(lives=st.floats(2, 4e9), share=shares)
def test_a_token_is_refreshed_in_the_last_third_of_its_life(lives, share):
    """Before it dies, and after two thirds of its life at the earliest."""
    refresh_in = renew_in_seconds(lives, share)
    assert (1 - LARGEST_SHARE_OF_LIFE) * lives - HAIR <= refresh_in <= lives
    assert lives - refresh_in <= 2 * MARGIN_SECONDS
    assert refresh_in < lives


@given(lives=st.floats(0, 2), share=shares)
def test_a_token_that_hardly_lives_is_not_refreshed_all_the_time(lives, share):
    """Nothing else paces token requests: a second at least, whatever the API says."""
    assert renew_in_seconds(lives, share) >= 1


@given(lives=st.floats(0, 4e9), more=st.floats(0, 4e9), share=shares, other=shares)
def test_a_longer_life_or_a_smaller_share_is_never_refreshed_earlier(lives, more, share, other):
    """In the order of their ends, and of the accounts' shares."""
    earlier, later = sorted([share, other], reverse=True)
    assert renew_in_seconds(lives, earlier) <= renew_in_seconds(lives, later)
    assert renew_in_seconds(lives, share) <= renew_in_seconds(lives + more, share) + HAIR


@given(failures=failures, chance=shares)
def test_a_token_request_waits_half_to_all_of_a_growing_time(failures, chance):
    """Never at once, never longer than two minutes, never shorter after one more failure."""
    wait = growing_seconds(failures, chance)
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 100), LONGEST_GROWING_SECONDS)
    assert longest / 2 <= wait <= longest
    assert wait <= growing_seconds(failures + 1, chance)


# --- A video refused alone ---


@given(misses=misses)
def test_the_wait_after_a_refusal_is_bounded_and_never_shrinks(misses):
    """From an hour to three days, each time at least as long as before."""
    wait, next_wait = wait_after_refusal(misses), wait_after_refusal(misses + 1)
    assert FIRST_WAIT_AFTER_REFUSAL <= wait <= next_wait <= LONGEST_WAIT


videos = st.builds(
    Video,
    st.text("0123456789", min_size=1).map(VideoId),
    st.booleans(),
    st.none() | st.just(NOW),
    misses,
    st.booleans(),
)


@given(asked=st.lists(videos, unique_by=lambda video: video.video_id, max_size=20))
def test_what_is_refused_alone_is_put_aside_and_nothing_of_it_lost(asked):
    """One write each: the reason, a later due time, one more miss, and no cover."""
    result = refused_alone(asked, "invalid_params", NOW)
    ids = [video.video_id for video in asked]
    assert [write.video_ids for write in result.writes] == [[video_id] for video_id in ids]
    assert result.rejections == [(video_id, "invalid_params") for video_id in ids]
    assert (result.refreshed, result.unchanged, result.missing) == (0, 0, 0)
    for video, write in zip(asked, result.writes, strict=True):
        assert (write.refusal, write.missing, write.gone) == ("invalid_params", False, False)
        assert (write.cover_expires_at, write.urls) == (None, [])
        assert write.misses == min(video.misses + 1, MOST_MISSES)
        assert 1 <= write.misses < 2**15
        assert write.due_at - NOW == wait_after_refusal(write.misses)


# --- What a token request comes to ---

standings = st.builds(
    TokenStanding,
    generation=st.integers(0, 9),
    renewable=st.just(True),
    due=st.just(True),
    dead=st.booleans(),
    renewed=st.booleans(),
    failures=st.integers(0, 20),
)
PARKING = [GrantRefused("invalid_grant"), ScopeRefused("invalid_scope")]
PASSING = [
    UpstreamFailed("timed_out"),
    TokenRequestFailed("server_error"),
    ClientRefused("invalid_client"),
]


def claim(token, failures=0):
    time = DatabaseTime(NOW, 0.0)
    return Claim(OpenId("ana"), "act.x", 7, NOW, failures, [], NOW, 0.1, time, token)


@given(token=standings, failures=st.integers(0, 20), chance=shares)
def test_a_refreshed_token_leaves_the_account_free(token, failures, chance):
    """Nothing delays the claim that asks with it; the failures of its covers stand."""
    release = conclude_token(claim(token, failures), None, chance, 30.0)
    assert release == Release(OpenId("ana"), 7, token.generation, failures=failures)


@given(token=standings, error=st.sampled_from(PARKING), chance=shares)
def test_a_refused_grant_parks(token, error, chance):
    """Its user alone can give another; it is not tried again."""
    release = conclude_token(claim(token), error, chance, 30.0)
    assert release.park
    assert release.park.reason == error.code
    assert release.token_retry_seconds == 0


@given(
    token=standings,
    error=st.sampled_from(PASSING),
    chance=shares,
    retry=st.floats(1, 300),
    failures=st.integers(0, 20),
)
def test_another_failure_is_tried_again_and_only_a_dead_token_holds_the_account_up(
    token, error, chance, retry, failures
):
    """A token that still lives is used meanwhile: the account is not delayed, let alone parked."""
    release = conclude_token(claim(token, failures), error, chance, retry)
    assert (release.park, release.pause_seconds, release.refused) == (None, 0.0, False)
    assert release.token_retry_seconds == retry
    assert release.retry_seconds == (retry if token.dead else 0.0)
    assert release.generation == token.generation
    assert release.failures >= failures


@pytest.mark.parametrize("error", [None, *PARKING, *PASSING], ids=str)
def test_no_release_of_a_token_claim_is_for_another_lease(error):
    """Account, epoch and generation are those of the claim, so a stale one does no harm."""
    token = TokenStanding(generation=3, renewable=True, due=True)
    release = conclude_token(claim(token), error, 0.5, 30.0)
    assert (release.open_id, release.lease_epoch, release.generation) == (OpenId("ana"), 7, 3)
