"""Properties of the small decisions: token renewals, limits of the app, videos refused alone."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.conclude import conclude_token
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
    ANSWERS_ENOUGH,
    ANSWERS_WATCHED,
    APP_THROTTLES,
    FIRST_PAUSE_SECONDS,
    LONGEST_GROWING_SECONDS,
    WINDOW_SECONDS,
    AppThrottle,
    DatabaseTime,
    growing_seconds,
)
from refresher.domain.reconcile import MOST_MISSES, refused_alone
from refresher.domain.tokens import LARGEST_SHARE_OF_LIFE, MARGIN_SECONDS, refresh_in_seconds

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
HAIR = 1e-6
shares = st.floats(0, 1, exclude_max=True)
failures = st.integers(0, 10_000)
misses = st.integers(0, 2**15)

# --- When a token is refreshed ---


@given(lives=st.floats(2, 4e9), share=shares)
def test_a_token_is_refreshed_in_the_last_third_of_its_life(lives, share):
    """Before it dies, and after two thirds of its life at the earliest."""
    refresh_in = refresh_in_seconds(lives, share)
    assert (1 - LARGEST_SHARE_OF_LIFE) * lives - HAIR <= refresh_in <= lives
    assert lives - refresh_in <= 2 * MARGIN_SECONDS
    assert refresh_in < lives


@given(lives=st.floats(0, 2), share=shares)
def test_a_token_that_hardly_lives_is_not_refreshed_all_the_time(lives, share):
    """Nothing else paces token requests: a second at least, whatever the API says."""
    assert refresh_in_seconds(lives, share) >= 1


@given(lives=st.floats(0, 4e9), more=st.floats(0, 4e9), share=shares, other=shares)
def test_a_longer_life_or_a_smaller_share_is_never_refreshed_earlier(lives, more, share, other):
    """In the order of their ends, and of the accounts' shares."""
    earlier, later = sorted([share, other], reverse=True)
    assert refresh_in_seconds(lives, earlier) <= refresh_in_seconds(lives, later)
    assert refresh_in_seconds(lives, share) <= refresh_in_seconds(lives + more, share) + HAIR


@given(failures=failures, chance=shares)
def test_a_token_request_waits_half_to_all_of_a_growing_time(failures, chance):
    """Never at once, never longer than two minutes, never shorter after one more failure."""
    wait = growing_seconds(failures, chance)
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 100), LONGEST_GROWING_SECONDS)
    assert longest / 2 <= wait <= longest
    assert wait <= growing_seconds(failures + 1, chance)


# --- Whether the app as a whole is limited ---

accounts = st.sampled_from(["ana", "ben", "cid"])
answers = st.lists(st.none() | accounts, max_size=60)


def fed(throttle, answers, now=0.0):
    """What the throttle says of each 429 among the answers; None is a good one."""
    told = []
    for account in answers:
        if account is None:
            throttle.answered(now)
        else:
            told.append(throttle.throttled(account, now))
    return told


@given(number=st.integers(0, 50))
def test_one_account_alone_never_shows_a_limit_of_the_app(number):
    """However many 429s it meets: that is its own limit."""
    assert not any(fed(AppThrottle(), ["ana"] * number))


@given(answers=answers)
def test_a_limit_of_the_app_takes_several_429s_among_few_answers(answers):
    """Five since the last time, of two accounts, within the latest ten answers."""
    throttle = AppThrottle()
    since = []
    for account in answers:
        since.append(account)
        if not any(fed(throttle, [account])):
            continue
        latest = [found for found in since[-ANSWERS_WATCHED:] if found]
        assert len(latest) >= APP_THROTTLES
        assert len(set(latest)) >= 2
        since.clear()


@given(before=answers)
def test_whatever_was_before_a_run_of_429s_shows_the_limit(before):
    """No history hides it for longer than the run needs."""
    throttle = AppThrottle()
    fed(throttle, before)
    assert any(fed(throttle, ["ana", "ben"] * APP_THROTTLES))


@given(before=answers)
def test_good_answers_make_it_forget(before):
    """After ten of them a few 429s say nothing."""
    throttle = AppThrottle()
    fed(throttle, [*before, *[None] * ANSWERS_WATCHED])
    assert not any(fed(throttle, ["ana", "ben"] * (APP_THROTTLES // 2)))


@given(times=st.lists(st.floats(0, 300), max_size=50), later=st.floats(0, 200))
def test_the_answers_of_the_last_window_are_counted(times, later):
    """To the second: no answer within the window is left out, none older by a second is in."""
    throttle = AppThrottle()
    fed(throttle, [None], now=-WINDOW_SECONDS)  # so a whole window was watched
    for time in sorted(times):
        fed(throttle, [None], time)
    now = max(times, default=0.0) + later
    counted = throttle.answered_lately(now)
    times.append(-WINDOW_SECONDS)
    assert counted is not None
    assert counted >= len([time for time in times if time >= now - WINDOW_SECONDS + 1])
    assert counted <= len([time for time in times if time >= now - WINDOW_SECONDS - 1])


@given(number=st.integers(0, 2 * ANSWERS_ENOUGH), seconds=st.floats(0, WINDOW_SECONDS - 1))
def test_too_little_seen_tells_of_no_limit(number, seconds):
    """A replica that has just begun knows only what many answers tell."""
    throttle = AppThrottle()
    fed(throttle, [None] * number, now=0.0)
    known = throttle.answered_lately(seconds)
    assert known == (number if number >= ANSWERS_ENOUGH else None)


def test_429s_far_apart_show_no_limit_of_the_app():
    """One now and then, on whatever account, is that account's affair."""
    throttle = AppThrottle()
    accounts = ["ana", "ben"] * 10
    assert not any(throttle.throttled(name, 20.0 * n) for n, name in enumerate(accounts))


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
