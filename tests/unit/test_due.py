"""When a video is due."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.due import (
    LONGEST_WAIT,
    LONGEST_WAIT_WHILE_PRESENT,
    DuePolicy,
    account_spread,
    due_after_refresh,
    wait_after_miss,
)
from refresher.domain.model import OpenId

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROUNDING = timedelta(microseconds=2)


def policy(lead, spread):
    return DuePolicy(lead=lead, spread=spread, fallback_ttl=6 * HOUR, missing_limit=5)


def spans(shortest, longest):
    return st.timedeltas(min_value=shortest, max_value=longest)


DEFAULT = policy(HOUR, HOUR / 2)
policies = st.builds(policy, *2 * [spans(timedelta(0), timedelta(days=365))])
shares = st.floats(min_value=0, max_value=1, exclude_max=True)
lives = spans(timedelta(milliseconds=1), timedelta(days=400))


@pytest.mark.parametrize(
    ("life", "share", "before_expiry"),
    [
        pytest.param(24 * HOUR, 0, HOUR, id="lead"),
        pytest.param(24 * HOUR, 0.5, 1.25 * HOUR, id="lead-and-half-of-the-spread"),
        pytest.param(4.5 * HOUR, 0.5, 1.25 * HOUR, id="a-third-is-just-enough"),
        pytest.param(2.25 * HOUR, 0, HOUR / 2, id="short-life-halves-the-lead"),
        pytest.param(2.25 * HOUR, 0.5, HOUR * 5 / 8, id="short-life-halves-the-spread-too"),
        pytest.param(HOUR / 60, 0, HOUR / 60 * 2 / 9, id="a-minute"),
    ],
)
def test_due_lead_and_spread_before_expiry(life, share, before_expiry):
    """Asked for lead and spread before expiry, both shrunk alike where the life is short."""
    assert due_after_refresh(DEFAULT, share, NOW, NOW + life) == NOW + life - before_expiry


def test_due_at_expiry_without_lead_and_spread():
    """An operator who wants neither lead nor spread gets neither."""
    nothing = policy(timedelta(0), timedelta(0))
    assert due_after_refresh(nothing, 0.9, NOW, NOW + HOUR) == NOW + HOUR


@given(policy=policies, share=shares, life=lives)
def test_due_in_the_last_third_of_life(policy, share, life):
    """Never before two thirds of the cover's life, never after its expiry."""
    due_at = due_after_refresh(policy, share, NOW, NOW + life)
    assert 3 * (due_at - NOW) >= 2 * life - ROUNDING
    assert due_at <= NOW + life


@given(policy=policies, share=shares, more=shares, life=lives)
def test_a_greater_share_is_never_due_later(policy, share, more, life):
    """Accounts are asked for in the order of their shares, whatever the settings."""
    low, high = sorted([share, more])
    later, earlier = (due_after_refresh(policy, s, NOW, NOW + life) for s in (low, high))
    assert earlier <= later


@given(open_id=st.text())
def test_a_share_is_a_part_of_one(open_id):
    """Every account has a share in [0, 1)."""
    assert 0 <= account_spread(OpenId(open_id)) < 1


def test_a_share_is_the_same_on_every_machine():
    """The share is part of no process: a restart does not move what is due."""
    assert account_spread(OpenId("account-1")) == pytest.approx(0.4895222716)


def test_shares_are_spread_evenly():
    """Of many accounts each tenth of the spread gets about its tenth."""
    tenths = [int(10 * account_spread(OpenId(f"account-{n}"))) for n in range(10_000)]
    assert all(900 < tenths.count(tenth) < 1100 for tenth in range(10))


@pytest.mark.parametrize(
    ("misses", "missing", "present"),
    [
        (1, HOUR / 60, HOUR / 60),
        (2, HOUR / 10, HOUR / 10),
        (3, HOUR * 36 / 60, HOUR * 36 / 60),
        (4, HOUR * 3.6, HOUR),
        (5, HOUR * 21.6, HOUR),
        (6, timedelta(days=3), HOUR),
        (32_000, timedelta(days=3), HOUR),
    ],
)
def test_the_wait_grows_with_the_misses(misses, missing, present):
    """Six times as long each time: up to days while missing, up to an hour while present."""
    assert wait_after_miss(misses, present=False) == missing
    assert wait_after_miss(misses, present=True) == present


@given(misses=st.integers(1, 2**15), present=st.booleans())
def test_a_wait_is_bounded_and_never_shrinks(misses, present):
    """One more miss never shortens the wait, and the wait has an end."""
    wait, next_wait = (wait_after_miss(n, present=present) for n in (misses, misses + 1))
    longest = LONGEST_WAIT_WHILE_PRESENT if present else LONGEST_WAIT
    assert timedelta(0) < wait <= next_wait <= longest


@given(share=shares, life=lives, grown=st.floats(0, 400 * 86_400))
def test_a_grown_lead_keeps_to_the_last_third_of_a_life(share, life, grown):
    """It makes a cover due earlier, and never before two thirds of its life."""
    usual = due_after_refresh(DEFAULT, share, NOW, NOW + life)
    due_at = due_after_refresh(DEFAULT, share, NOW, NOW + life, grown)
    assert NOW + life * 2 / 3 - ROUNDING <= due_at <= NOW + life
    if life >= 3 * (DEFAULT.lead + DEFAULT.spread):
        assert due_at <= usual + ROUNDING
