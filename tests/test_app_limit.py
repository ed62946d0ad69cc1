"""A limit of the whole app that nobody configured: how it shows and how high it is taken to be."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.app_limit import (
    ANSWERS_WATCHED,
    APP_THROTTLES,
    JUDGED_ANSWERS,
    JUDGED_SECONDS,
    LEAST_RATE,
    NEARLY_ALL,
    OWN_SECONDS,
    OWN_THROTTLES,
    REMEMBERED_SECONDS,
    WINDOW,
    AppThrottle,
    Heard,
    app_limit,
)
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from tests.conftest import eventually, waits_for_a_lock

accounts = st.sampled_from(["ana", "ben", "cid"])
answers = st.lists(st.none() | accounts, max_size=60)


def fed(throttle, answers, now=0.0):
    """After which of the answers the limit of the app showed; None is a good one."""
    told = []
    for account in answers:
        if account is None:
            throttle.answered("dan", now)
        else:
            throttle.throttled(account, now)
            told.append(throttle.shows_limit(now))
    return told


# --- Whether the app as a whole is limited ---


@given(number=st.integers(0, 50), in_force=st.booleans())
def test_one_account_alone_never_shows_a_limit_of_the_app(number, in_force):
    """However many 429s it meets: that is its own limit."""
    throttle = AppThrottle()
    throttle.in_force = in_force
    assert not any(fed(throttle, ["ana"] * number))


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


def test_429s_far_apart_show_no_limit_of_the_app():
    """One now and then, on whatever account, is that account's affair."""
    throttle = AppThrottle()
    told = [fed(throttle, [name], 20.0 * n) for n, name in enumerate(["ana", "ben"] * 10)]
    assert told == [[False]] * 20


def in_force():
    throttle = AppThrottle()
    throttle.in_force = True
    return throttle


def test_a_limit_in_force_shows_with_two_accounts():
    """Good answers between them change nothing: a rate that is a little too fast meets few 429s.

    It takes some time more, in which they may turn out to be the accounts' own.
    """
    throttle = in_force()
    assert fed(throttle, ["ana", *[None] * 20, "ben"]) == [False, False]
    fed(throttle, [None] * (JUDGED_ANSWERS - 1))
    assert not throttle.shows_limit(0.0)
    fed(throttle, [None])
    assert throttle.shows_limit(0.0)
    fed(throttle, ["ana", *[None] * JUDGED_ANSWERS])
    assert not throttle.shows_limit(0.0), "as many again"
    fed(throttle, ["ben"], now=WINDOW + 1.0)
    assert not throttle.shows_limit(WINDOW + JUDGED_SECONDS + 1.0), "within a window"


def test_where_few_are_answered_two_429s_show_a_limit_in_force_after_half_a_window():
    """A low limit, or many replicas: so many good answers do not come."""
    throttle = in_force()
    fed(throttle, ["ana", "ben"])
    assert not throttle.shows_limit(JUDGED_SECONDS - 1)
    assert throttle.shows_limit(JUDGED_SECONDS)


def test_where_nearly_everybody_is_refused_a_limit_in_force_shows_at_once():
    """It was lowered: the rate is far too fast."""
    told = fed(
        in_force(), [*[None] * ANSWERS_WATCHED, *[f"account-{n}" for n in range(NEARLY_ALL)]]
    )
    assert told == [False] * (NEARLY_ALL - 1) + [True]


@pytest.mark.parametrize(("own", "answered"), [(2, 3), (2, 10), (2, 22), (3, 6), (5, 8)])
def test_accounts_that_are_throttled_by_themselves_never_slow_the_app_down(own, answered):
    """Some of thirty are refused for good, the others answered: the 429s are theirs alone."""
    throttle, rate, now = in_force(), 300.0, 0.0
    turns = []
    for turn in range(1000):
        asked = [f"refused-{n}" for n in range(own)]
        asked += [f"answered-{(turn + n) % (30 - own)}" for n in range(answered)]
        met = []
        for account in asked:
            now += 60 / rate
            if account.startswith("refused"):
                met.append(throttle.throttled(account, now))
            else:
                throttle.answered(account, now)
            if throttle.shows_limit(now):
                rate = app_limit([Heard(0.0, throttle.answered_lately(now))]).rate_per_minute
            assert rate == 300, turn
        turns.append(met)
    assert not any(any(met) for met in turns[4:]), "each soon has errors of its own"


def test_a_shared_token_is_found_although_it_is_answered_now_and_then():
    """Refused far more often than the others are."""
    throttle = in_force()
    for _ in range(20):
        met = throttle.throttled("ana", 0.0)
        throttle.answered("ana", 0.0)
        fed(throttle, [None] * 5)
    assert not met


def test_429s_that_come_together_are_the_apps():
    """The same accounts again and again, with few answers in between: everybody is refused."""
    throttle = in_force()
    for turn in range(100):
        assert throttle.throttled(f"account-{turn % 10}", 0.0)
        if turn % 3 == 0:
            throttle.answered(f"account-{turn % 7}", 0.0)


def test_an_account_that_was_throttled_by_itself_gets_another_chance():
    """When it has not been for some minutes; before that each 429 is its own."""
    throttle = in_force()
    fed(throttle, ["ana", *[None] * 20, "ana"])
    assert not throttle.throttled("ana", OWN_SECONDS - 1)
    assert throttle.throttled("ana", OWN_SECONDS + WINDOW)


def test_a_429_under_a_limit_in_force_is_the_apps():
    """But not before one is known, and not where one account alone meets them."""
    throttle = AppThrottle()
    assert not throttle.throttled("ana", 0.0)
    throttle.in_force = True
    assert throttle.throttled("ben", 0.0)
    later = 2.0 * WINDOW
    met = [throttle.throttled("ana", later) for _ in range(OWN_THROTTLES + 1)]
    assert met == [True] * (OWN_THROTTLES - 1) + [False] * 2
    assert throttle.throttled("ben", later)


def test_the_429s_own_wish_is_what_all_accounts_were_told():
    """It runs out, and one account's long wish does not silence the others."""
    throttle = AppThrottle()
    assert throttle.wished_seconds(0.0) == 0
    throttle.throttled("ana", 0.0, 10.0)
    throttle.throttled("ana", 0.0, 40.0)
    throttle.throttled("ben", 0.0, 1e9)
    assert throttle.wished_seconds(10.0) == 30
    assert throttle.wished_seconds(41.0) == 0
    throttle.throttled("cid", 0.0)
    assert throttle.wished_seconds(10.0) == 0


# --- What was answered ---


@given(times=st.lists(st.floats(0, 300), max_size=50), later=st.floats(0, 200))
def test_answers_are_told_by_their_age(times, later):
    """To the second, the latest first, and none older than what is remembered."""
    throttle = AppThrottle()
    for time in sorted(times):
        throttle.answered("dan", time)
    now = max(times, default=0.0) + later
    counts = throttle.answered_lately(now)
    ages = [int(now) - int(time) for time in times]
    assert len(counts) <= REMEMBERED_SECONDS
    assert counts == [ages.count(age) for age in range(len(counts))]
    assert sum(counts) == len([age for age in ages if age < REMEMBERED_SECONDS])


# --- How high the limit is ---


def test_what_all_replicas_saw_is_the_limit():
    """However unevenly, and although they told it at different moments."""
    limit = app_limit([Heard(0.2, [30, 31]), Heard(4.6, [20, 8]), Heard(2.0, [11])])
    assert limit.answered == limit.rate_per_minute == 100


@pytest.mark.parametrize(
    ("heard", "unheard", "rate"),
    [([Heard(0, [40])], 2, 120), ([Heard(0, [40]), Heard(1, [20])], 1, 90), ([], 3, LEAST_RATE)],
)
def test_those_that_told_nothing_count_as_the_others(heard, unheard, rate):
    """A replica of the previous version, or one that has met no 429 yet."""
    assert app_limit(heard, unheard).rate_per_minute == rate


def test_a_pause_does_not_make_it_forget_the_limit():
    """Just after a window of silence the last one holds a few answers: the one before counts."""
    burst = [5, *[0] * 60, 100]
    assert app_limit([Heard(0, burst)]).rate_per_minute == 100
    assert app_limit([Heard(REMEMBERED_SECONDS - 61, burst)]).rate_per_minute == LEAST_RATE


def test_the_least_rate_is_not_zero():
    """So slowly nobody would learn that it may go on."""
    assert app_limit([Heard(0, [])]).rate_per_minute == LEAST_RATE


def test_after_a_burst_nobody_sends_until_it_has_left_the_window():
    """All of it came eleven seconds ago: 49 more are to be waited for."""
    assert app_limit([Heard(0, [*[0] * 11, 100])]).pause_seconds == 49


def test_after_a_steady_flow_there_is_no_pause():
    """As many leave the window as are sent."""
    assert app_limit([Heard(0, [2] * WINDOW)]).pause_seconds <= 1


burst = st.tuples(st.integers(0, WINDOW - 1), st.integers(1, 50))


@given(bursts=st.lists(burst, min_size=1, max_size=20))
def test_whatever_was_answered_the_rate_finds_room_after_the_pause(bursts):
    """A true window of the limit has a place for each request that is sent at the rate."""
    counts = [0] * WINDOW
    for age, number in bursts:
        counts[age] += number
    limit = app_limit([Heard(0, counts)])
    arrivals = [-float(age) for age, number in enumerate(counts) for _ in range(number)]
    sent = limit.pause_seconds
    for _ in range(100):
        sent += 60 / limit.rate_per_minute
        assert len([at for at in arrivals if at > sent - 60 + 1e-6]) < limit.rate_per_minute + 1e-6
        arrivals.append(sent)


# --- Together, through the app's row ---


def claims(pool, replica):
    return Accounts(
        pool,
        replica=replica,
        pace=Pace(600, 0, lease_seconds=20),
    )


async def test_replicas_add_up_what_they_saw(pool):
    """The last one to tell knows all; each told once, whatever it told before."""
    assert not await claims(pool, "a").tell_answers([5])
    await claims(pool, "a").tell_answers([0, 60])
    await claims(pool, "b").tell_answers([40])
    limit = await claims(pool, "b").limit_app(0.0)
    assert (limit.answered, limit.rate_per_minute) == (100, 100)
    assert await claims(pool, "a").tell_answers([]), "the app is limited now"


async def test_a_replica_at_work_that_told_nothing_is_taken_for_another(pool):
    """The rate of the first to notice is no third of the limit; it is put right by the others."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, lease_owner, lease_expires_at)"
        " SELECT r, 'act.' || r, r, now() + interval '1 minute' FROM unnest('{a,b,c}'::text[]) r"
    )
    await claims(pool, "a").tell_answers([40])
    assert (await claims(pool, "a").limit_app(0.0)).rate_per_minute == 120
    await claims(pool, "b").tell_answers([35])
    await claims(pool, "c").tell_answers([25])
    assert (await claims(pool, "c").limit_app(0.0)).rate_per_minute == 100


async def test_a_replica_that_learns_of_a_limit_puts_it_right_upwards_only(pool):
    """Found without its answers it is too low; without a 429 of its own it lowers nothing."""
    await claims(pool, "a").tell_answers([54])
    await claims(pool, "a").limit_app(0.0)
    await claims(pool, "b").tell_answers([46])
    assert (await claims(pool, "b").limit_app(0.0, shown=False)).rate_per_minute == 100
    await pool.execute("UPDATE refresher.app SET rate = 300")
    assert await claims(pool, "b").limit_app(0.0, shown=False) is None


async def test_nobody_sends_until_there_is_room_and_as_long_as_the_429_wished(pool):
    """A burst a second ago leaves in 59; a Retry-After of 300 is longer."""
    left = "SELECT extract(epoch FROM next_slot_at - now()) FROM refresher.app"
    await claims(pool, "a").tell_answers([0, 100])
    await claims(pool, "a").limit_app(0.0)
    assert 55 < await pool.fetchval(left) <= 60
    await claims(pool, "a").limit_app(300.0)
    assert 295 < await pool.fetchval(left) <= 300


@pytest.mark.parametrize(("minutes", "limited"), [(0, True), (9, True), (11, False)])
async def test_a_limit_is_given_up_where_no_429_shows_it_any_more(pool, minutes, limited):
    """Ten minutes after the last one; until then it has grown by far more than any change."""
    await claims(pool, "a").tell_answers([100])
    await claims(pool, "a").limit_app(0.0)
    await pool.execute(
        "UPDATE refresher.app SET rate_lowered_at = now() - $1 * interval '1 minute'", minutes
    )
    assert await claims(pool, "a").tell_answers([]) is limited


async def test_every_replica_learns_of_the_limit_by_its_claims(pool):
    """Also one that has met no 429: it begins to tell, and blames no account."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token)"
        " SELECT r, 'act.' || r FROM unnest('{a,b}'::text[]) r;"
        "INSERT INTO refresher.videos (open_id, video_id) SELECT 'a', '1' UNION SELECT 'b', '2'"
    )
    (before,) = await claims(pool, "a").claim(1)
    assert not before.app_limited
    await claims(pool, "a").tell_answers([100])
    await claims(pool, "a").limit_app(0.0)
    assert await claims(pool, "b").claim(1) == [], "the burst has not left the window"
    await pool.execute("UPDATE refresher.app SET next_slot_at = now()")
    (after,) = await claims(pool, "b").claim(1)
    assert after.app_limited


async def test_a_limit_that_another_replica_has_found_meanwhile_stays(pool):
    """It may have heard more: of two that decide on the same state only the first one counts."""
    a, b = claims(pool, "a"), claims(pool, "b")
    await a.tell_answers([100])
    async with pool.acquire() as other, other.transaction():
        await other.execute("UPDATE refresher.app SET rate = 77, rate_lowered_at = now()")
        second = asyncio.create_task(b.limit_app(0.0))
        await eventually(lambda: waits_for_a_lock(pool), "the second to wait for the first")
    assert await second is None
    assert await pool.fetchval("SELECT rate FROM refresher.app") == 77


async def test_what_a_replica_told_is_dropped_when_it_is_old(pool):
    """Or the row would grow with every restart."""
    await pool.execute(
        "UPDATE refresher.app SET answers = jsonb_build_object('gone', jsonb_build_object("
        "'at', extract(epoch FROM now()) - 121, 'answers', '900'))"
    )
    await claims(pool, "a").tell_answers([1])
    kept = "SELECT array_agg(key) FROM refresher.app, jsonb_object_keys(answers) AS key"
    assert await pool.fetchval(kept) == ["a"]


async def test_without_the_apps_row_no_limit_is_kept_to(pool):
    """A restore left it out: nothing is found, and nothing fails."""
    await pool.execute("DELETE FROM refresher.app")
    assert await claims(pool, "a").tell_answers([100]) is False
    assert await claims(pool, "a").limit_app(0.0) is None
