"""A quota for the whole day: waited for until it can have changed, by nobody but its account."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.errors import AccessTokenRefused, DailyQuotaSpent, Throttled, UpstreamFailed
from refresher.domain.model import Claim, OpenId, Release, TokenStanding
from refresher.domain.pacing import DatabaseTime, Pace, quota_pause_seconds
from refresher.postgres.accounts import Accounts
from tests.conftest import eventually
from tests.outcomes import conclude, conclude_token

HALF_AN_HOUR = 1800.0
DAY = 86_400.0
MORNING = datetime(2026, 11, 28, 8, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 29, tzinfo=UTC)
moments = st.integers(1_600_000_000, 4_000_000_000).map(lambda it: datetime.fromtimestamp(it, UTC))
failures = st.integers(0, 100)
chances = st.floats(0, 1, exclude_max=True)


def spent(wish=None, status=429):
    return DailyQuotaSpent(
        "daily_quota_limit_exceeded", status=status, log_id="2026", retry_after_seconds=wish
    )


def claim(failed=0, now=MORNING, **token):
    standing = TokenStanding(3, **token)
    return Claim(
        OpenId("ana"), "act.ana", 7, now, failed, [], now, 0.1, DatabaseTime(now, 0.0), standing
    )


# --- How long ---


def test_half_an_hour_growing_to_midnight():
    """And a little later than that, so that not all come in the same second."""
    pauses = [quota_pause_seconds(failed, 0.0, MORNING, None) for failed in range(8)]
    assert pauses == [1800, 3600, 7200, 14_400, 28_800, *3 * [16 * 3600.0]]
    assert quota_pause_seconds(99, 0.5, MORNING, None) == 16 * 3600 + 150
    assert quota_pause_seconds(0, 0.5, MIDNIGHT - timedelta(seconds=60), None) == 60 + 150
    assert quota_pause_seconds(0, 0.0, MIDNIGHT, None) == HALF_AN_HOUR


@pytest.mark.parametrize(
    ("wish", "pause"),
    [(60.0, 60.0), (7200.0, 7200.0), (99_999.0, DAY), (59.0, HALF_AN_HOUR), (0.0, HALF_AN_HOUR)],
)
def test_the_replys_own_word_counts(wish, pause):
    """For a day at most; what is below a minute says nothing of a day."""
    assert quota_pause_seconds(0, 0.0, MORNING, wish) == pause


@given(failed=failures, chance=chances, now=moments)
def test_never_past_the_next_midnight_by_more_than_minutes(failed, chance, now):
    """Whatever came before; and never in a hurry, but right before midnight."""
    pause = timedelta(seconds=quota_pause_seconds(failed, chance, now, None))
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
    assert now < now + pause <= midnight + timedelta(seconds=300)
    assert pause >= min(timedelta(minutes=30), midnight - now) - timedelta(milliseconds=1)


@given(chance=chances, now=moments)
def test_each_refusal_waits_at_least_as_long_as_the_last(chance, now):
    pauses = [quota_pause_seconds(failed, chance, now, None) for failed in range(20)]
    assert all(earlier <= later for earlier, later in pairwise(pauses))


# --- What it means for a claim ---


@pytest.mark.parametrize("status", [200, 429])
def test_a_day_pauses_and_lowers_no_rate(status):
    """Half an hour from the claim's own time; more where it is met again."""
    release = conclude(claim(), [spent(status=status)], 0.0)
    assert replace(release, last_failure=None) == Release(
        OpenId("ana"),
        7,
        3,
        failures=1,
        pause_seconds=HALF_AN_HOUR,
        quota_spent=True,
    )
    again = conclude(claim(failed=1), [spent(status=status)], 0.0)
    assert (again.failures, again.pause_seconds) == (2, 2 * HALF_AN_HOUR)


def test_a_day_outweighs_a_minute_and_a_credential_outweighs_both():
    """In whatever order they came."""
    minute = Throttled("rate_limit_exceeded", status=429, log_id="", retry_after_seconds=None)
    for errors in ([minute, spent()], [spent(), minute, UpstreamFailed("timed_out")]):
        release = conclude(claim(), errors, 0.0)
        assert (release.pause_seconds, release.quota_spent) == (HALF_AN_HOUR, True)
    refused = AccessTokenRefused("access_token_invalid", status=401)
    assert conclude(claim(), [spent(), refused], 0.0).park is not None
    assert not conclude(claim(), [minute], 0.0).quota_spent


def test_a_token_waits_for_its_day_and_the_account_goes_on():
    """While the access token lives it is used."""
    release = conclude_token(claim(due=True, renewable=True), spent(), 0.0, 30.0)
    assert (release.token_retry_seconds, release.pause_seconds) == (HALF_AN_HOUR, 0.0)
    assert (release.retry_seconds, release.park) == (0.0, None)
    dead = replace(claim().token, due=True, renewable=True, dead=True, failures=1)
    release = conclude_token(replace(claim(), token=dead), spent(), 0.0, 30.0)
    assert release.token_retry_seconds == release.retry_seconds == 2 * HALF_AN_HOUR


# --- In the row ---


def replica(pool, name):
    return Accounts(
        pool,
        replica=name,
        pace=Pace(600, 0, lease_seconds=60),
    )


async def test_the_pause_holds_for_all_replicas_and_leaves_the_rate(pool):
    """Also against new videos; when it is over the account has its whole rate."""
    await pool.execute("INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'x')")
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '1')")
    (first,) = await replica(pool, "a").claim(10)
    release = Release("ana", first.lease_epoch, 0, 1, pause_seconds=7200.0, quota_spent=True)
    (released,) = await replica(pool, "a").release([release])
    assert 7190 < released.wake_in_seconds <= 7200
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '2')")
    for name in "ab":
        assert await replica(pool, name).claim(10) == []
    row = await pool.fetchrow("SELECT * FROM refresher.accounts")
    assert (row["rate_share"], row["failures"]) == (1.0, 1)
    await pool.execute("UPDATE refresher.accounts SET next_slot_at = now(), wake_at = now()")
    (second,) = await replica(pool, "b").claim(10)
    assert second.step_seconds == first.step_seconds


SHAPES = {
    "429-code": (429, "daily_quota_limit_exceeded", "", {}),
    "200-code": (200, "daily_quota_limit_exceeded", "", {}),
    "429-message": (429, "rate_limit_exceeded", "At most 1000 requests per day.", {}),
    "200-message": (200, "spam_risk", "The daily quota of this user is reached.", {}),
    "429-wish": (429, "daily_limit", "", {"Retry-After": "9000"}),
}


def refusal(shape):
    status, code, message, headers = SHAPES[shape]
    body = {"data": {}, "error": {"code": code, "message": message, "log_id": "2026"}}
    return web.json_response(body, status=status, headers=headers)


async def test_once_does_not_wait_for_another_day(serve, start):
    """The others are answered, and it says by its exit code that one could not be."""
    world = await serve()
    await world.add_account("spent", 20)
    await world.add_account("good", 20)
    world.emulator.answer_with = lambda query: (
        refusal("429-code") if query.open_id == "spent" else None
    )
    once = await start(world, command="once")
    assert await once.ended() == 1
    assert await world.valid() == 20
    assert "20 due videos could not be answered" in once.output.read_text()


async def test_days_that_are_spent_cost_one_request_each_and_nobody_else(serve, start, pool):
    """Thirty accounts at once are neither a limit of the app nor an API that is down."""
    world = await serve(cover_ttl=3)
    for number in range(30):
        await world.add_account(f"{list(SHAPES)[number % 5]}/{number}", 20)
    await world.add_account("good", 20)
    world.emulator.answer_with = lambda query: (
        None if query.open_id == "good" else refusal(query.open_id.split("/")[0])
    )
    began = datetime.now(UTC)
    daemons = [await start(world) for _ in range(2)]

    def throttled():
        events = [event for daemon in daemons for event in daemon.events("account.throttled")]
        return {event["open_id"]: event for event in events}

    def asked(name):
        return [arrival.open_id for arrival in list(world.emulator.record)].count(name)

    async def all_said():
        return len(throttled()) == 30

    await eventually(all_said, "thirty accounts to pause")
    before = asked("good")

    async def goes_on():
        return asked("good") >= before + 3

    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id)"
        " SELECT open_id, 'new' FROM refresher.accounts WHERE open_id <> 'good'"
    )
    await eventually(goes_on, "the good account to be asked three times more")
    for daemon in daemons:
        assert await daemon.stopped() == 0
        assert not daemon.events("app.throttled")
        assert not daemon.events("upstream.lost")
    midnight = datetime(began.year, began.month, began.day, tzinfo=UTC) + timedelta(days=1)
    least = min(HALF_AN_HOUR, (midnight - began).total_seconds()) - 60
    for open_id, event in throttled().items():
        assert asked(open_id) == 1 or least < 0  # right before midnight it may be two days' worth
        shape = open_id.split("/")[0]
        assert (event["quota"], event["code"]) == ("day", SHAPES[shape][1])
        if shape == "429-wish":
            assert event["pause_seconds"] == 9000.0
        else:
            assert event["pause_seconds"] >= least
    rows = await pool.fetch(
        "SELECT rate_share, state, next_slot_at - now() AS left, max(misses) AS misses"
        " FROM refresher.accounts JOIN refresher.videos USING (open_id)"
        " WHERE open_id <> 'good' GROUP BY open_id"
    )
    for row in rows:
        assert (row["rate_share"], row["state"], row["misses"]) == (1.0, "active", 0)
        assert row["left"].total_seconds() >= least - 60


async def test_a_minutes_limit_is_said_as_one(serve, start):
    """The event tells the two apart, and names TikTok's code."""
    world = await serve(throttled_share=1.0)
    await world.add_account("ana", 20)
    event = await (await start(world)).until_event("account.throttled")
    assert (event["quota"], event["code"]) == ("minute", "rate_limit_exceeded")
    assert event["pause_seconds"] <= 60
