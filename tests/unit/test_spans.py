"""Numbers and times as operators read them."""

from datetime import UTC, datetime, timedelta

import pytest

from refresher.domain.spans import counted, number, percent, seen_from, since, span

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (90_061, "1 d 1 h"),
        (86_400 + 60, "1 d"),
        (86_400 * 4000, "4,000 d"),
    ],
)
def test_a_span_has_two_units_at_most(seconds, words):
    """The largest one, and the next one where that is not 0."""
    assert span(seconds) == words


def test_words_around_numbers():
    """One is one; thousands stand apart."""
    assert (counted(1, "account"), counted(1200, "account")) == ("1 account", "1,200 accounts")
    assert number(1_234_567.8) == "1,234,568"


def test_words_around_times():
    """What is a moment away is now, and what is to come was no time ago."""
    assert seen_from(NOW, NOW + timedelta(microseconds=4)) == "2026-09-01 12:00:00+00:00 (now)"
    assert since(NOW, NOW + timedelta(seconds=9)) == "0 s"


def test_a_share_is_never_told_too_high():
    """All is said of all only."""
    assert [percent(share) for share in (0.57, 0.99999, 1.0)] == ["57 %", "99.99 %", "100 %"]
