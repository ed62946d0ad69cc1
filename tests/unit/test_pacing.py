"""How fast: slots under the rate limit, and how long to stay away after a failure."""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.pacing import (
    FIRST_PAUSE_SECONDS,
    FIRST_RETRY_SECONDS,
    HEADROOM_SECONDS,
    LATE_CLAIM_SECONDS,
    LATE_KEPT_SECONDS,
    LATEST_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_RETRY_SECONDS,
    WINDOW_SECONDS,
    DatabaseTime,
    Lateness,
    pause_seconds,
    retry_seconds,
    step_seconds,
)

HAIR = 1e-6
failures = st.integers(0, 10_000)
chances = st.floats(min_value=0, max_value=1, exclude_max=True)


def doubled(times):
    return 2.0 ** min(times, 100)


def fullest_window(times):
    """The most requests that any 60 s hold."""
    times = sorted(times)
    return max(
        bisect_right(times, start + WINDOW_SECONDS) - first for first, start in enumerate(times)
    )


@given(limit=st.integers(1, 40), reach=st.floats(0, 30), data=st.data())
def test_no_window_holds_more_than_the_limit(limit, reach, data):
    """However late each request is within the headroom and the reach, no 60 s hold too many."""
    latest = HEADROOM_SECONDS + reach - HAIR
    late = data.draw(st.lists(st.floats(0, latest), min_size=limit + 1, max_size=2 * limit + 1))
    step = step_seconds(limit, reach)
    assert fullest_window([slot * step + delay for slot, delay in enumerate(late)]) <= limit


@pytest.mark.parametrize("limit", [1, 2, 599, 600, 1_000])
def test_the_worst_case_stays_under_the_limit(limit):
    """The first ones late, all at once, and the others on time: the window is full, not more."""
    slots = [number * step_seconds(limit) for number in range(2 * limit + 1)]
    assert fullest_window(max(slot, HEADROOM_SECONDS - HAIR) for slot in slots) == limit


def test_slots_begin_later_where_claims_come_late():
    """By as much as the latest ones did, until they have come sooner for a while."""
    lateness = Lateness()
    lateness.note(LATE_CLAIM_SECONDS, 0.0)
    assert lateness.ahead_seconds(0.0) == 0
    lateness.note(3.0, 1.0)
    lateness.note(0.1, 2.0)
    lateness.note(-5.0, 3.0)
    assert lateness.ahead_seconds(1.0 + LATE_KEPT_SECONDS) == 3
    lateness.note(4.0, 5.0)
    assert lateness.ahead_seconds(5.0 + LATE_KEPT_SECONDS) == 4
    assert lateness.ahead_seconds(5.1 + LATE_KEPT_SECONDS) == 0
    lateness.note(0.1, 16.0)
    assert lateness.ahead_seconds(16.0) == 0


def test_little_of_the_limit_is_given_away():
    """The headroom costs less than 2 % of 600 requests a minute."""
    assert step_seconds(600) * 588 <= WINDOW_SECONDS


def test_no_limit_means_no_distance():
    """0 is no limit: the slots of a claim are all now."""
    assert step_seconds(0) == step_seconds(0, 30.0) == 0


def test_a_slot_is_given_up_well_within_the_headroom():
    """Some of the headroom is left for the way to the server."""
    assert 0 < LATEST_SECONDS < HEADROOM_SECONDS


@given(failures=failures, chance=chances)
def test_a_retry_waits_up_to_a_bounded_growing_time(failures, chance):
    """Full jitter: from nothing to twice the last bound, at most five minutes."""
    wait = retry_seconds(failures, chance)
    assert 0 <= wait <= min(FIRST_RETRY_SECONDS * doubled(failures), LONGEST_RETRY_SECONDS)
    assert wait <= retry_seconds(failures + 1, chance)


@pytest.mark.parametrize(
    ("failures", "bound"), [(0, 2), (1, 4), (2, 8), (7, 256), (8, 300), (10**6, 300)]
)
def test_the_bound_of_a_retry_doubles(failures, bound):
    """Two seconds, doubled with every failure, up to five minutes."""
    assert retry_seconds(failures, 0.5) == bound / 2


@given(failures=failures, chance=chances, retry_after=st.none() | st.floats(0, 99_999))
def test_a_pause_is_half_to_all_of_its_time_and_never_less_than_wished(
    failures, chance, retry_after
):
    """The reply's wish is honoured, up to an hour; without one the pause lasts a window at most."""
    own = min(FIRST_PAUSE_SECONDS * doubled(failures), LONGEST_PAUSE_SECONDS)
    pause = pause_seconds(failures, chance, retry_after)
    wished = min(retry_after or 0, 3600)
    assert max(own / 2, wished) <= pause <= max(own, wished)


@given(
    moment=st.datetimes(timezones=st.just(UTC)),
    monotonic=st.floats(0, 1e9),
    passed=st.floats(0, 1e6),
)
def test_the_databases_time_is_carried_on(moment, monotonic, passed):
    """As much passes on the database's clock as on the monotonic one, there and back."""
    now = min(moment, datetime(9000, 1, 1, tzinfo=UTC))
    time = DatabaseTime(now, monotonic)
    later = time.at(monotonic + passed)
    assert abs(later - now - timedelta(seconds=passed)) < timedelta(milliseconds=1)
    assert time.monotonic_of(later) == pytest.approx(monotonic + passed, abs=1e-3)
