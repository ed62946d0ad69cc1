"""What a webhook says, and when it is tried again."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.webhooks import JITTER, WAITS_SECONDS, Answer, Webhook, wait_seconds

CHANGED_AT = datetime(2026, 11, 30, 5, 42, 54, 120511, tzinfo=UTC)
WAITS = [5, 30, 120, 600, 1800, 3600, 3600]


@given(st.text().filter(bool), st.dictionaries(st.text(), st.integers() | st.text()))
def test_a_body_is_json_of_three_parts(open_id, data):
    """Of any text, in one line; the account is named by us alone."""
    data.pop("open_id", None)
    body = Webhook("1", "account.parked", open_id, CHANGED_AT, data).body
    assert "\n" not in body
    assert json.loads(body) == {
        "type": "account.parked",
        "timestamp": "2026-11-30T05:42:54.120511+00:00",
        "data": {"open_id": open_id, **data},
    }


def test_what_concerns_all_accounts_names_none():
    """Its data is its own."""
    body = Webhook("1", "forecast.at_risk", None, CHANGED_AT, {"covers": 7}).body
    assert json.loads(body)["data"] == {"covers": 7}


@pytest.mark.parametrize(("attempts", "wait"), list(enumerate(WAITS, 1)))
def test_waits_grow_to_an_hour(attempts, wait):
    """A fifth less at the least, and a fifth more at the most."""
    assert wait_seconds(attempts, None, lambda: 0.5) == wait
    assert wait_seconds(attempts, None, lambda: 0.0) == pytest.approx(0.8 * wait)
    assert wait_seconds(attempts, None, lambda: 0.999) == pytest.approx(1.2 * wait, rel=0.01)


@given(st.integers(1, 100), st.none() | st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_a_wait_has_its_bounds(attempts, asked, chance):
    """Never at once, never long enough to lose the day, and no shorter than what is asked for."""
    wait = wait_seconds(attempts, asked, lambda: chance)
    assert (1 - JITTER) * WAITS_SECONDS[0] <= wait <= (1 + JITTER) * WAITS_SECONDS[-1]
    assert wait >= min(asked or 0, WAITS_SECONDS[-1])


@pytest.mark.parametrize(
    ("status", "is_delivered"),
    [(0, False), (199, False), (200, True), (204, True), (299, True), (300, False), (500, False)],
)
def test_only_2xx_takes_a_webhook(status, is_delivered):
    """As the standard says."""
    assert Answer(status, "").is_delivered is is_delivered
