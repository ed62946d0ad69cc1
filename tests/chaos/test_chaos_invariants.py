"""The invariants of the chaos runs find real violations, and nothing else."""

from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from refresher.emulator.record import TokenArrival
from tests.chaos import invariants
from tests.chaos.invariants import Parked, StoredAccount, StoredVideo, TokenRequested
from tests.chaos.journal import Journal
from tests.chaos.upstream import added_up

NOW = datetime(2026, 1, 2, tzinfo=UTC)
URL = f"https://covers.example/a?x-expires={int(NOW.timestamp()) + 30}&x-signature=s"


def test_a_full_window_is_no_breach_and_one_more_is():
    """The window slides: 61 requests may take 60 s or longer."""
    spread = [float(second) for second in range(120)]
    assert not list(invariants.over_limit("a", spread, 60))
    assert list(invariants.over_limit("a", [*spread, 119.5], 60))


def test_a_burst_shows_long_before_a_window_is_full():
    """Requests have the distance of their slots, less the headroom."""
    step = 61.2 / 60
    assert not list(invariants.too_close("a", [0, step, 2 * step - 1.1], 60))
    assert list(invariants.too_close("a", [0, step, 2 * step - 1.3], 60))


def arrival(at, code="ok", *, used=False, answered=True, digest="d"):
    return TokenArrival(at, "a", 200, code, digest, used, answered)


def asked(*arrivals):
    return [TokenRequested(arrival, "replica-0") for arrival in arrivals]


def test_a_refresh_token_that_was_renewed_is_not_sent_again():
    """If the answer to the renewal arrived."""
    requests = asked(arrival(1), arrival(9, "invalid_grant", used=True))
    assert list(invariants.used_twice(requests, Journal(), ()))
    assert not list(invariants.used_twice(requests, Journal(), ("a",)))


def test_after_a_lost_answer_it_may_be_sent_again():
    """The answer was not sent, or the process that asked was killed or stopped."""
    lost = asked(arrival(1, answered=False), arrival(9, "invalid_grant", used=True))
    assert not list(invariants.used_twice(lost, Journal(), ()))
    journal = Journal()
    now = monotonic()
    journal.note("killed", "replica-0")
    killed = asked(arrival(now - 0.1), arrival(now + 9, "invalid_grant", used=True))
    assert not list(invariants.used_twice(killed, journal, ()))
    others = [TokenRequested(request.arrival, "replica-1") for request in killed]
    assert list(invariants.used_twice(others, journal, ()))


def account(state="active", reason=None, *, lives=False):
    return StoredAccount("a", state, reason, "d", lives, sealed=True)


@pytest.mark.parametrize(
    ("requests", "found"),
    [
        ((arrival(1, "no_answer", answered=False),), False),
        ((arrival(1, "no_answer", answered=False), arrival(2, "invalid_grant", used=True)), True),
        ((arrival(1),), True),
        ((), True),
    ],
    ids=["lost, not tried", "lost, tried", "not stored", "never seen"],
)
def test_no_account_is_silently_dead(requests, found):
    """The refresh token of an active account lives, unless nobody can know of its end yet."""
    check = invariants.lost_unsaid([account()], asked(*requests), Journal(), 100.0)
    assert bool(list(check)) is found


def test_a_consent_taken_back_shows_when_it_is_tried():
    """Before that, the account may be active."""
    journal = Journal()
    journal.note("authorized", "a")
    journal.note("consent_revoked", "a")
    refused = asked(arrival(1, "invalid_grant"))
    assert not list(invariants.lost_unsaid([account()], (), journal, 100.0))
    assert list(invariants.lost_unsaid([account()], refused, journal, 100.0))


def test_an_account_is_parked_for_a_reason():
    """The reason is stored, and it is true."""
    journal = Journal()
    journal.note("authorized", "a")
    parked = account("needs_reauthorization", "invalid_grant")
    assert list(invariants.parked_wrongly([parked], (), journal))
    assert list(invariants.parked_wrongly([account("paused")], (), journal))
    journal.note("consent_revoked", "a")
    assert not list(invariants.parked_wrongly([parked], (), journal))
    assert list(
        invariants.parked_wrongly([account("needs_reauthorization", "x", lives=True)], (), journal)
    )
    assert list(invariants.parked_wrongly([account("needs_reauthorization")], (), journal))


def test_a_park_is_said():
    """In the row; and in a log, unless a fault hit the replica at that time."""
    park = Parked(100.0, "a", "needs_reauthorization", "invalid_grant")
    calm = lambda _at: False  # noqa: E731
    assert not list(invariants.parked_unsaid([park], [park._replace(at=101.0)], calm))
    assert list(invariants.parked_unsaid([park], [], calm))
    assert list(invariants.parked_unsaid([park], [park._replace(reason="other")], calm))
    assert not list(invariants.parked_unsaid([park], [], lambda _at: True))
    assert list(invariants.parked_unsaid([park._replace(reason=None)], [], lambda _at: True))


def video(url=URL, seconds=30, due=-5, misses=0, refusal=None):
    return StoredVideo(
        "a",
        "v",
        url,
        NOW + timedelta(seconds=seconds) if url else None,
        NOW + timedelta(seconds=due),
        misses,
        refusal,
    )


@pytest.mark.parametrize(
    ("stored", "handed_out", "found"),
    [
        (video(), {URL: "v"}, False),
        (video(None), {}, False),
        (video(), {}, True),
        (video(), {URL: "another"}, True),
        (video(seconds=31), {URL: "v"}, True),
    ],
    ids=["as it came", "none yet", "of nobody", "of another video", "another expiry"],
)
def test_stored_covers_are_those_handed_out(stored, handed_out, found):
    """Each byte of the URL is as it was made, and the expiry is that of the URL."""
    assert bool(list(invariants.bad_covers([stored], handed_out))) is found


@pytest.mark.parametrize(
    ("stored", "not_served", "found"),
    [
        (video(), None, False),
        (video(seconds=-1), None, True),
        (video(None), None, True),
        (video(None, due=50, misses=1), -5, False),
        (video(None, due=50, misses=1), None, True),
        (video(None, due=500, misses=1), -5, True),
        (video(None, due=3500, misses=1, refusal="invalid_params"), -5, False),
    ],
    ids=["valid", "expired", "none", "missing", "never missing", "waits too long", "refused"],
)
def test_every_video_that_exists_is_valid(stored, not_served, found):
    """Or it waits, as documented, after an answer that left it out or refused it."""
    served = {} if not_served is None else {"v": NOW.timestamp() + not_served}
    assert bool(list(invariants.not_valid([stored], {"a": {"v"}}, served, NOW))) is found
    assert not list(invariants.not_valid([stored], {}, served, NOW))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            '{"event":"daemon.stopped","level":"info","timestamp":"2026-11-29T02:00:00Z","abandoned_accounts":0}',
            False,
        ),
        (
            '{"event":"daemon.failed","level":"error","timestamp":"2026-11-29T02:00:00Z","exception":"x"}',
            True,
        ),
        ('{"event":"unheard.of","level":"info","timestamp":"2026-11-29T02:00:00Z"}', True),
        (
            '{"event":"daemon.stopped","level":"info","timestamp":"2026-11-29T02:00:00Z","other":0}',
            True,
        ),
        ("Traceback (most recent call last):", True),
    ],
    ids=["fine", "forbidden", "unknown", "unknown field", "no event"],
)
def test_logs_hold_known_events_only(line, found):
    """No unexpected event, and no line that is no event."""
    assert bool(list(invariants.bad_lines("log", line + "\n"))) is found


def test_no_secret_is_in_the_logs():
    """No token, no signature, no app credentials."""
    for secret in ("act." + "0" * 9, "x-signature=abc", "client-pass-word-of-the-tests"):
        line = f'{{"event":"database.lost","level":"error","timestamp":"2026-11-29T02:00:00Z","reason":"{secret}"}}'
        assert list(invariants.bad_lines("log", line))


def test_a_database_that_is_gone_is_not_said_to_be_back():
    """While the server is stopped, it cannot be back."""
    journal = Journal()
    before = monotonic()
    with journal.during("gone", "database"):
        during = monotonic()
    said = [(before - 1, "replica-0"), (during, "replica-1"), (monotonic() + 1, "replica-2")]
    found = list(invariants.recovered_early(said, journal))
    assert len(found) == 1
    assert found[0].startswith("replica-1")


def test_faults_add_up_to_one_at_most():
    """The shares of queries, and those of token requests."""
    both = [{"failed_share": 0.9}, {"throttled_share": 0.6, "slow_share": 1.0}]
    shares = added_up([*both, {"token_cut_share": 0.4}])
    assert 0.99 < shares["failed_share"] + shares["throttled_share"] < 1
    assert (shares["slow_share"], shares["token_cut_share"]) == (1.0, 0.4)


def test_an_api_is_away_only_where_something_is_wrong_with_it():
    """A refused account is no reason. An outage shortly before is one."""
    journal = Journal()
    now = monotonic()
    with journal.during("restricted", "a"):
        assert list(invariants.lost_wrongly([(now, "replica-0")], journal))
    with journal.during("upstream.down_cut", "upstream"):
        assert not list(invariants.lost_wrongly([(monotonic(), "replica-0")], journal))
    assert list(invariants.lost_wrongly([(monotonic() + 60, "replica-0")], journal))


def test_a_cover_that_was_said_to_be_stored_is():
    """A commit that was lost after its acknowledgement shows; one that was not acknowledged does not."""
    events = [
        {"event": "account.refreshed", "open_id": "a", "refreshed": 2},
        {"event": "account.refreshed", "open_id": "b", "refreshed": 1},
        {"event": "token.refreshed", "open_id": "a"},
    ]
    stored = [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")]
    assert not list(invariants.lost_covers(events, stored))
    assert len(list(invariants.lost_covers(events, stored[1:]))) == 1
