"""A bad account must not look like a dead host: it is told apart, left alone, and costs nobody."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from random import Random
from time import monotonic

import pytest
from aiohttp import web
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from benchmarks.bad_accounts import KINDS, Run, measure, show
from refresher.domain.breaker import LOST_TRIALS
from refresher.domain.claiming import chunks_of
from refresher.domain.cohorts import Cohort, Fleet
from refresher.domain.conclude import Whose
from refresher.domain.due import DuePolicy
from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
    NotSent,
    Throttled,
    TokenRequestFailed,
    UpstreamFailed,
)
from refresher.domain.model import (
    Claim,
    OpenId,
    Release,
    TokenPair,
    TokenStanding,
    Video,
    VideoId,
)
from refresher.domain.pacing import (
    DOUBT_SECONDS,
    FIRST_ISOLATION_SECONDS,
    ISOLATED_AFTER,
    LONGEST_ISOLATION_SECONDS,
    DatabaseTime,
    Pace,
    back_off,
    growing_seconds,
    isolation_seconds,
)
from refresher.domain.troubles import (
    MOST_ACCOUNTS,
    MOST_VIDEOS,
    SUSPECT_AFTER,
    WATCHED,
    WATCHED_SECONDS,
    Troubles,
)
from refresher.flow.claiming import Claiming
from refresher.flow.health import Health, SentRequest
from refresher.postgres.accounts import Accounts
from refresher.postgres.listing import list_accounts
from refresher.postgres.sealing import Sealer, rotate_all
from refresher.postgres.status import count_isolated, set_state
from refresher.postgres.tokens import TokenStore
from refresher.simulation.engine import Engine
from refresher.simulation.plan import DAY_SECONDS, HOUR_SECONDS, START, Plan
from refresher.tiktok.query_answer import read_answer
from tests.conftest import eventually, until
from tests.outcomes import conclude, conclude_token

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
REASON = "internal_error, HTTP 500, log_id x"
FAILED = UpstreamFailed("internal_error", status=500, log_id="x")
PAIR = TokenPair("t2", 7200.0, "r2", None, None)
chances = st.floats(min_value=0, max_value=1, exclude_max=True)


# --- Whose failure it is ---


def troubles(*events):
    """`a+` is answered, `a-` fails, a second after the other; what is known then, and when."""
    found = Troubles()
    for now, (account, outcome) in enumerate(events):
        if outcome == "+":
            found.answered(account, ["1"], float(now))
        else:
            found.failed(account, ["1"], float(now))
    return found, float(len(events))


@pytest.mark.parametrize(
    ("events", "own"),
    [
        pytest.param(["a-"], False, id="nobody-was-answered"),
        pytest.param(["b+", "c+", "d+", "e+", "a-"], False, id="others-before-it"),
        pytest.param(["a-", "b+", "c+", "d+", "e+"], True, id="others-since"),
        pytest.param(["a-", "b+", "c+", "d+", "e+", "a+"], False, id="and-it-itself"),
        pytest.param(["a-", "b-", "c-", "d+", "e+"], False, id="many-fail"),
        pytest.param(["a-", *["b+"] * 8, "c-"], False, id="another-begins-to"),
        pytest.param(["a-", *["b+"] * 8, "c-", "b+"], True, id="another-fails-by-itself"),
        pytest.param(["a-", *["b+"] * 8, "c-", "b+", "c-"], True, id="which-is-known"),
        pytest.param(["a-", "b+", "a-", "c+", "a-", "d+", "a-", "e+"], True, id="again-and-again"),
    ],
)
def test_failures_are_an_accounts_own_while_others_are_answered(events, own):
    """Since it began to fail, and hardly anybody else fails."""
    found, now = troubles(*events)
    assert found.is_own("a", now) == own


def test_a_bad_minute_is_forgotten():
    """Where many failed once, and after a minute one still does, that is its own."""
    found, _ = troubles("a-", "b-", "c-", "d+")
    assert not found.is_own("a", WATCHED_SECONDS)
    assert found.is_own("a", WATCHED_SECONDS + 4)


def test_an_outage_explains_all_failures():
    """What failed while nobody was answered is news again."""
    found, _ = troubles("a-", "b+")
    assert found.is_known("a")
    found.forget()
    assert not found.is_known("a")


def test_memory_does_not_grow_with_the_accounts_in_trouble():
    """The oldest are forgotten, and begin anew."""
    found = Troubles()
    for number in range(2 * MOST_ACCOUNTS):
        found.failed(str(number), ["1"], 0.0)
    found.answered("other", (), 1.0)
    assert not found.is_known("0")
    assert found.is_known(str(2 * MOST_ACCOUNTS - 1))
    assert len(found._since) == len(found._videos) == MOST_ACCOUNTS


@pytest.mark.parametrize(("accounts", "chunks"), [(2 * MOST_VIDEOS // 500, 25), (1, 10_000)])
def test_memory_does_not_grow_with_their_videos(accounts, chunks):
    """Of many large accounts fewer are remembered, and never too many videos of one."""
    found = Troubles()
    ids = count(7 * 10**18)
    for number in range(accounts):
        for _ in range(chunks):
            asked = [str(next(ids)) for _ in range(20)]
            for _ in range(SUSPECT_AFTER):
                found.failed(str(number), asked, 0.0)
    kept = sum(len(videos) for videos in found._videos.values())
    assert kept == found._counted <= MOST_VIDEOS
    for other in range(WATCHED):
        found.answered(f"other-{other}", (), 1.0)
    assert found.are_suspect(str(accounts - 1), asked, 1.0), "the latest is remembered"
    found.answered(str(accounts - 1), asked, 2.0)
    assert sum(len(videos) for videos in found._videos.values()) == found._counted == kept - 20


def test_a_request_without_videos_leaves_none_behind():
    """Those for a token."""
    found = Troubles()
    found.failed("a", (), 0.0)
    found.answered("b", (), 1.0)
    assert found.is_known("a")
    assert found._videos == {}


@pytest.mark.parametrize(
    ("others", "own"),
    [
        pytest.param([], True, id="nobody-elses"),
        pytest.param(["-"], False, id="anothers-fails-too"),
        pytest.param(["-", "+"], True, id="anothers-has-been-refreshed-since"),
    ],
)
async def test_whose_failure_a_token_request_is(others, own):
    """Others are answered, and so are token requests of others, where there were any."""
    health = Health(64, chance=lambda: 0.5, clock=monotonic)

    def told(name, videos, outcome):
        request = SentRequest(name, videos, monotonic(), isolated=False)
        health.sent(request)
        health.answered(request, good=outcome == "+")
        if outcome == "-":
            health.complained(request)

    told("a", (), "-")
    assert not health.token_fails_by_itself("a"), "nobody is answered"
    for number in range(9):
        told(f"good-{number}", ["1"], "+")
    for outcome in others:
        told("b", (), outcome)
    told("good-0", ["1"], "+")
    assert health.token_fails_by_itself("a") == own
    told("a", ["1"], "+")
    assert not health.token_fails_by_itself("a"), "its token lives"


def test_a_video_is_suspect_after_some_failed_chunks():
    """While others are answered; until it is answered itself."""
    found = Troubles()
    for _ in range(SUSPECT_AFTER):
        assert not found.are_suspect("a", ["1", "2"], 0.0)
        found.failed("a", ["1", "2"], 0.0)
    assert not found.are_suspect("a", ["1"], 0.0), "nobody is answered"
    for other in "bcdef":
        found.answered(other, ["9"], 1.0)
    assert found.are_suspect("a", ["1", "4"], 1.0)
    assert not found.are_suspect("a", ["4"], 1.0)
    found.answered("a", ["1"], 1.0)
    assert not found.are_suspect("a", ["1"], 1.0)


def test_an_account_is_mixed_while_some_videos_fail_and_others_do_not():
    """Then it is not the account, and one suspect video needs no proof of that."""
    found = Troubles()
    for _ in range(SUSPECT_AFTER):
        found.failed("a", ["1"], 0.0)
    assert not found.is_mixed("a")
    for video in "34567":
        found.answered("a", [video], 0.0)
    assert found.is_mixed("a")
    assert found.are_suspect("a", ["1"], 0.0)
    found.answered("a", ["1"], 0.0)
    assert not found.is_mixed("a")


@pytest.mark.parametrize(
    ("status", "body", "spoken"),
    [
        pytest.param(403, b'{"error":{"code":"user_account_restricted"}}', True, id="unlisted"),
        pytest.param(200, b'{"error":{"code":"what"}}', True, id="unknown-code"),
        pytest.param(500, b'{"error":{"code":"internal_error"}}', True, id="5xx"),
        pytest.param(403, b"<html>", False, id="a-gateway"),
        pytest.param(403, b'{"error":{"code":"ok"}}', False, id="no-error-at-all"),
    ],
)
def test_tiktoks_own_error_object_is_told(status, body, spoken):
    """With whatever code."""
    with pytest.raises(UpstreamFailed) as raised:
        read_answer(status, {}, body, ["1"], 0.0)
    assert raised.value.spoken == spoken


# --- What follows ---


def claim(failures=0, *, isolated=False, videos=1, token=None):
    asked = [Video(VideoId(str(n)), True, None, 0, False) for n in range(videos)]
    return Claim(
        OpenId("ana"), "act.ana", 7, NOW, failures, asked, NOW, 0.1, DatabaseTime(NOW, 0.0),
        token or TokenStanding(3),
        isolated_since=NOW if isolated else None,
        isolated_reason="before" if isolated else None,
    )  # fmt: skip


@given(failures=st.integers(0, 100), chance=chances)
def test_an_isolated_account_waits_half_to_all_of_a_growing_time(failures, chance):
    """A minute at first, then minutes, a day at last, and hardly longer than it has lasted."""
    wait = isolation_seconds(failures, chance)
    ladder = [DOUBT_SECONDS, *(FIRST_ISOLATION_SECONDS * 2**step for step in range(9))]
    step = max(0, failures - ISOLATED_AFTER)
    longest = ladder[step] if step < len(ladder) else LONGEST_ISOLATION_SECONDS
    assert longest / 2 <= wait <= longest


@given(failures=st.integers(0, 100), by_itself=st.booleans(), chance=chances)
def test_an_account_that_fails_by_itself_is_isolated_in_the_end(failures, by_itself, chance):
    """Then the wait begins at its beginning, however often it failed while that was not known."""
    after = back_off(failures, chance, by_itself=by_itself)
    assert after.isolated == (by_itself and failures + 1 >= ISOLATED_AFTER)
    if after.isolated:
        assert after.failures == ISOLATED_AFTER
        assert after.seconds <= DOUBT_SECONDS


@given(failures=st.integers(0, 2), tries=st.integers(1, 500), chance=chances)
def test_an_outage_puts_nobody_on_the_long_ladder(failures, tries, chance):
    """However often an account is a trial: seconds after it, it is asked again."""
    for _ in range(tries):
        after = back_off(failures, chance, nobody_answered=True, by_itself=failures > 5)
        failures = after.failures
    assert not after.isolated
    assert after.seconds <= 8


def test_the_reason_names_code_status_and_log_id():
    """Of the latest failure; for a time-out there is neither."""
    release = conclude(claim(2), [FAILED], 0.5, by_itself=True)
    assert release.isolated_reason == REASON
    release = conclude(claim(9, isolated=True), [UpstreamFailed("timed_out")], 0.5)
    assert (release.isolated_reason, release.failures) == ("timed_out, no answer", 10)


@pytest.mark.parametrize(
    ("errors", "answered", "reason"),
    [
        pytest.param([], True, None, id="answered"),
        pytest.param([FAILED], True, None, id="answered-in-part"),
        pytest.param([AccessTokenRefused("access_token_invalid")], False, None, id="parked"),
        pytest.param([], False, "before", id="not-asked"),
        pytest.param([FAILED], False, REASON, id="failed-again"),
        pytest.param(
            [Throttled("t", status=429, log_id="", retry_after_seconds=None)],
            False,
            "before",
            id="throttled",
        ),
    ],
)
def test_what_ends_an_isolation(errors, answered, reason):
    """An answer does, and a park that says more."""
    release = conclude(claim(5, isolated=True), errors, 0.5, answered=answered)
    assert release.isolated_reason == reason


@pytest.mark.parametrize("error", [None, TokenRequestFailed("server_error")])
def test_a_claim_for_the_token_leaves_the_standing_as_it_is(error):
    """Nothing was asked for."""
    token = TokenStanding(3, renewable=True, due=True)
    release = conclude_token(claim(5, isolated=True, token=token), error, 0.5, 30.0)
    assert (release.isolated_reason, release.failures) == ("before", 5)


DEAD = TokenStanding(3, renewable=True, due=True, dead=True)
MALFORMED = UpstreamFailed("malformed_answer", status=500)


@pytest.mark.parametrize("error", [MALFORMED, TokenRequestFailed("server_error")], ids=str)
@pytest.mark.parametrize("isolated", [False, True])
def test_a_dead_token_that_cannot_be_refreshed_isolates(error, isolated):
    """By the same ladder as its queries would: a few requests a day, and not one every minute."""
    now, requests, random = 0.0, 0, Random(0)
    taken = claim(9 if isolated else 0, isolated=isolated, token=DEAD)
    while now < DAY_SECONDS:
        retry = growing_seconds(taken.token.failures, random.random())
        release = conclude_token(taken, error, random.random(), retry, whose=Whose.OWN)
        now += max(release.retry_seconds, release.token_retry_seconds)
        requests += 1
        taken = replace(
            taken,
            failures=release.failures,
            token=replace(taken.token, failures=requests),
            isolated_since=release.isolated_reason and NOW,
            isolated_reason=release.isolated_reason,
        )
    assert requests <= (4 if isolated else 20)
    assert release.isolated_reason.startswith(error.code)


@given(failures=st.integers(ISOLATED_AFTER, 100), chance=chances)
def test_an_isolated_account_waits_no_less_for_its_token(failures, chance):
    """Where it is not known whose failure it is, too: as long as before."""
    for error in (MALFORMED, ClientRefused("invalid_client")):
        taken = claim(failures, isolated=True, token=DEAD)
        release = conclude_token(taken, error, chance, 30.0)
        assert (release.failures, release.isolated_reason) == (failures, "before")
        assert release.retry_seconds == release.token_retry_seconds
        assert release.retry_seconds == max(30.0, isolation_seconds(failures, chance))


@pytest.mark.parametrize("token", [DEAD, replace(DEAD, dead=False)], ids=["dead", "alive"])
@pytest.mark.parametrize(
    ("error", "own"), [(MALFORMED, True), (ClientRefused("invalid_client"), False)], ids=str
)
def test_only_a_failure_of_a_dead_token_isolates(token, error, own):
    """One that lives is used; what is refused is the app's client, not the account."""
    release = conclude_token(claim(9, token=token), error, 0.5, 30.0, whose=Whose.OWN)
    assert bool(release.isolated_reason) == (own and token.dead)


@pytest.mark.parametrize(
    ("error", "whose", "failures"),
    [
        pytest.param(MALFORMED, Whose.OWN, 3, id="its own"),
        pytest.param(MALFORMED, Whose.UNKNOWN, 3, id="not known whose"),
        pytest.param(MALFORMED, Whose.ANOTHERS, 2, id="nobody is answered"),
        pytest.param(NotSent("upstream_down"), Whose.ANOTHERS, 2, id="not sent"),
        pytest.param(ClientRefused("invalid_client"), Whose.UNKNOWN, 2, id="the app's"),
    ],
)
def test_what_is_not_the_accounts_does_not_count(error, whose, failures):
    """A secret that is put right after hours, or TikTok that comes back, isolates nobody."""
    release = conclude_token(claim(2, token=DEAD), error, 0.5, 30.0, whose=whose)
    assert release.failures == failures
    assert bool(release.isolated_reason) == (whose is Whose.OWN)
    assert release.retry_seconds == release.token_retry_seconds == 30.0 or whose is Whose.OWN


def test_an_account_that_was_not_asked_after_all_stays_as_it_was():
    """Its chunks missed their slots: that is no good sign."""
    assert conclude(claim(2), [], 0.5).failures == 2
    assert conclude(claim(2), [], 0.5).retry_seconds == 0
    assert conclude(claim(2, videos=0), [], 0.5).failures == 0


# --- In the database ---


def replica(pool, **options):
    return Accounts(
        pool,
        replica="a",
        pace=Pace(600, 0, lease_seconds=60),
        **options,
    )


async def add(pool, name, videos, *, due=timedelta(0)):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, 't')", name
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, due_at)"
        " SELECT $1, n::text, now() + $3 FROM generate_series(1, $2) AS n",
        name, videos, due,
    )  # fmt: skip


async def isolate(pool, name, seconds=3600.0):
    """As a claim's release does."""
    (taken,) = await replica(pool).claim(10)
    assert taken.open_id == name
    (released,) = await replica(pool).release(
        [
            Release(
                name,
                taken.lease_epoch,
                taken.token.generation,
                failures=3,
                retry_seconds=seconds,
                isolated_reason=REASON,
            )
        ]
    )
    assert released.wake_in_seconds == pytest.approx(seconds, abs=5)
    assert released.isolated


async def test_an_isolated_account_is_left_alone_whatever_is_inserted(pool):
    """The hold is for new videos, too; operators see it with its reason."""
    await add(pool, "ana", 5)
    await isolate(pool, "ana")
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', 'new')")
    await pool.execute("UPDATE refresher.videos SET cover_image_url = NULL WHERE video_id = '1'")
    assert await replica(pool).claim(10) == []
    # Nor does it lie before all others that claims come by.
    assert await pool.fetchval("SELECT wake_at = next_slot_at FROM refresher.accounts")
    ((listed,),) = [page async for page in list_accounts(pool, "isolated")]
    assert (listed["state"], listed["isolated_reason"]) == ("active", REASON)
    assert listed["isolated_since"] is not None
    assert await count_isolated(pool) == 1


async def test_new_tokens_end_an_isolation(pool):
    """They are another word of the user's: it is asked at once."""
    await add(pool, "ana", 5)
    await isolate(pool, "ana")
    await pool.execute("UPDATE refresher.accounts SET access_token = 'new'")
    (taken,) = await replica(pool).claim(10)
    assert (taken.isolated_since, taken.failures, len(taken.videos)) == (None, 0, 5)
    assert taken.first_slot <= taken.time.now + timedelta(seconds=1)


async def test_resuming_ends_an_isolation(pool):
    """The operator knows better."""
    await add(pool, "ana", 5)
    await isolate(pool, "ana")
    assert await set_state(pool, "ana", "active", None)
    (taken,) = await replica(pool).claim(10)
    assert (taken.isolated_since, taken.failures) == (None, 0)


async def test_what_was_learnt_with_old_tokens_isolates_nobody(pool):
    """The tokens were replaced while the account was in work: it is asked again at once."""
    await add(pool, "ana", 5)
    (taken,) = await replica(pool).claim(10)
    await pool.execute("UPDATE refresher.accounts SET access_token = 'new'")
    release = Release(
        "ana", taken.lease_epoch, taken.token.generation,
        failures=3, retry_seconds=3600, isolated_reason=REASON,
    )  # fmt: skip
    for _ in range(2):  # the second time its commit was not heard of
        (released,) = await replica(pool).release([release])
        assert not released.isolated
    (taken,) = await replica(pool).claim(10)
    assert taken.isolated_since is None


async def isolated_with_a_token_due(pool):
    """An account that has failed eight times, claimed for its token; since when it is isolated."""
    await add(pool, "ana", 5)
    since = await pool.fetchval(
        "UPDATE refresher.accounts SET refresh_token = 'r', token_due_at = now(), failures = 8,"
        " tokens_generation = tokens_generation + 1, isolated_reason = $1,"
        " isolated_since = now() - interval '5 hours' RETURNING isolated_since",
        REASON,
    )
    (taken,) = await replica(pool, managed=True).claim(10)
    assert (taken.token.due, taken.failures, taken.isolated_since) == (True, 8, since)
    return taken, since


async def standing(pool):
    return tuple(
        await pool.fetchrow(
            "SELECT isolated_since, isolated_reason, failures FROM refresher.accounts"
        )
    )


async def refreshed(pool, taken):
    """Its token is refreshed by us, and the account is given back."""
    store = TokenStore(pool, Sealer(()))
    used = await store.begin(taken)
    assert await store.replace(taken, used, PAIR, 6000.0)
    await replica(pool).release([conclude_token(taken, None, 0.5, 30.0)])


async def test_our_own_token_refresh_does_not_end_an_isolation(pool):
    """It is no word of the user's: the next failure waits as long as it would have."""
    taken, since = await isolated_with_a_token_due(pool)
    await refreshed(pool, taken)
    assert await standing(pool) == (since, REASON, 8)
    (taken,) = await replica(pool, managed=True).claim(10)
    assert (taken.access_token, taken.isolated_since, taken.token.due) == ("t2", since, False)
    release = conclude(taken, [FAILED], 0.5)
    assert (release.failures, release.retry_seconds) == (9, isolation_seconds(9, 0.5))
    (released,) = await replica(pool).release([release])
    assert released.wake_in_seconds == pytest.approx(release.retry_seconds, abs=5)
    assert await standing(pool) == (since, REASON, 9)


async def test_an_answer_after_our_own_token_refresh_ends_an_isolation(pool):
    """As any answer does."""
    taken, _ = await isolated_with_a_token_due(pool)
    await refreshed(pool, taken)
    (taken,) = await replica(pool, managed=True).claim(10)
    await replica(pool).release([conclude(taken, [], 0.5, answered=True)])
    assert await standing(pool) == (None, None, 0)


@pytest.mark.parametrize("ours_as_well", [False, True])
async def test_new_tokens_while_an_isolated_account_is_in_work_end_it(pool, ours_as_well):
    """Somebody else's, whether before a pair of ours or alone: it begins anew."""
    taken, _ = await isolated_with_a_token_due(pool)
    store = TokenStore(pool, Sealer(()))
    used = await store.begin(taken)
    await pool.execute("UPDATE refresher.accounts SET access_token = 'new'")
    if ours_as_well:
        assert await store.replace(taken, used, PAIR, 6000.0)
    await replica(pool).release([conclude_token(taken, None, 0.5, 30.0)])
    assert await standing(pool) == (None, None, 0)


async def test_sealing_ends_no_isolation(pool):
    """Neither as the account is claimed, nor while it is in work."""
    key, newer_key = (Fernet.generate_key().decode() for _ in range(2))
    await add(pool, "ana", 5)
    await isolate(pool, "ana", seconds=0.01)
    since, *_ = await standing(pool)
    before = await pool.fetchval("SELECT tokens_generation FROM refresher.accounts")
    await eventually(
        lambda: pool.fetchval("SELECT wake_at < now() FROM refresher.accounts"), "its turn"
    )
    (taken,) = await replica(pool, sealer=Sealer([key])).claim(10)
    assert taken.token.generation == before + 1
    assert await rotate_all(pool, Sealer([newer_key, key])) == 1
    await replica(pool).release([conclude(taken, [FAILED], 0.5)])
    assert await standing(pool) == (since, REASON, 4)


async def test_a_claim_takes_one_chunk_of_an_isolated_account(pool):
    """In no fixed order: one that spoils its chunk meets others next time."""
    await add(pool, "ana", 300)
    seen = set()
    for _ in range(3):
        await isolate(pool, "ana", seconds=0.01)
        await eventually(
            lambda: pool.fetchval("SELECT wake_at < now() FROM refresher.accounts"), "its turn"
        )
        (taken,) = await replica(pool).claim(10)
        assert len(taken.videos) == 20
        seen |= {video.video_id for video in taken.videos}
        await pool.execute(
            "UPDATE refresher.accounts"
            " SET lease_owner = NULL, lease_expires_at = NULL, wake_at = now(), next_slot_at = now()"
        )
    assert len(seen) > 20


async def test_an_isolated_account_is_not_tried_with_a_video_that_was_refused_alone(pool):
    """However long that has waited: it would fail each time, and the account be isolated for good."""
    await add(pool, "ana", 5)
    await pool.execute(
        "UPDATE refresher.videos SET refusal = 'internal_error', due_at = now() - interval '1 day'"
        " WHERE video_id = '3'"
    )
    for isolated in (False, True):
        await pool.execute(
            "UPDATE refresher.accounts SET isolated_since = CASE WHEN $1 THEN now() END,"
            " wake_at = now(), next_slot_at = now(), lease_owner = NULL, lease_expires_at = NULL",
            isolated,
        )
        (taken,) = await replica(pool).claim(10)
        assert ("3" in {video.video_id for video in taken.videos}) != isolated
        assert len(taken.videos) == (4 if isolated else 1)


async def test_a_standing_begins_once_and_ends_with_an_answer(pool):
    """Since when stays; the reason is the latest."""
    await add(pool, "ana", 5)
    await isolate(pool, "ana", seconds=0.01)
    since = await pool.fetchval("SELECT isolated_since FROM refresher.accounts")
    await eventually(
        lambda: pool.fetchval("SELECT wake_at < now() FROM refresher.accounts"), "its turn"
    )
    (taken,) = await replica(pool).claim(10)
    assert (taken.isolated_since, taken.isolated_reason) == (since, REASON)
    await replica(pool).release(
        [Release("ana", taken.lease_epoch, taken.token.generation, isolated_reason="other")]
    )
    row = await pool.fetchrow("SELECT isolated_since, isolated_reason FROM refresher.accounts")
    assert tuple(row) == (since, "other")
    (taken,) = await replica(pool).claim(10)
    await replica(pool).release([Release("ana", taken.lease_epoch, taken.token.generation)])
    assert await count_isolated(pool) == 0


async def test_a_trial_goes_round_the_accounts(pool):
    """Not to one that was tried, nor to one that was not well, while there are others; in no order."""
    for name in ("ana", "ben", "cem", "dan"):
        await add(pool, name, 5)
    await pool.execute("UPDATE refresher.accounts SET failures = 1 WHERE open_id = 'dan'")
    asked = []
    for _ in range(4):
        (taken,) = await replica(pool).claim(1, tried=asked)
        asked.append(taken.open_id)
        await replica(pool).release([Release(taken.open_id, taken.lease_epoch)])
        await pool.execute("UPDATE refresher.accounts SET failures = 1 WHERE open_id = 'dan'")
    assert asked[3] == "dan"
    assert sorted(asked[:3]) == ["ana", "ben", "cem"]
    (taken,) = await replica(pool).claim(1, tried=asked)
    assert taken.open_id in asked, "all were tried: again"
    await replica(pool).release([Release(taken.open_id, taken.lease_epoch)])
    firsts = set()
    for _ in range(30):
        (taken,) = await replica(pool).claim(1, tried=["dan"])
        firsts.add(taken.open_id)
        await replica(pool).release([Release(taken.open_id, taken.lease_epoch)])
    assert firsts == {"ana", "ben", "cem"}


async def test_a_trial_may_ask_for_what_is_not_due(pool):
    """Where all that is due may be bad; that it is early counts no miss."""
    await add(pool, "bad", 5)
    await add(pool, "good", 50, due=timedelta(hours=1))
    await pool.execute(
        "UPDATE refresher.accounts SET videos = 50, wake_at = now() + interval '1 hour'"
        " WHERE open_id = 'good'"
    )
    (taken,) = await replica(pool).claim(1, tried=["bad"])
    assert (taken.open_id, len(taken.videos)) == ("good", 20)
    assert not any(video.due for video in taken.videos)
    assert [one.open_id for one in await replica(pool).claim(1)] == ["bad"], "no trial: what is due"


async def test_a_trial_finds_whose_trigger_stands_in_its_way(pool):
    """One that is not due, too: it is left alone, and the others are trials."""
    for name in ("tried", "refusing"):
        await add(pool, name, 5)
    await make_well(pool, "refusing")
    await pool.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no lease for you'; END $$;"
        " CREATE TRIGGER refuse BEFORE UPDATE OF lease_owner ON refresher.accounts"
        " FOR EACH ROW WHEN (NEW.open_id = 'refusing') EXECUTE FUNCTION refuse()"
    )
    claiming = Claiming(replica(pool), chance=lambda: 1 - 2**-53, clock=monotonic)
    with capture_logs() as logs:
        (taken,) = await claiming.claim(1, ["tried"])
    assert taken.open_id == "tried", "there is nobody else"
    assert [(log["event"], log["open_id"]) for log in logs] == [("account.refused", "refusing")]
    await replica(pool).release([Release("tried", taken.lease_epoch)])
    await add(pool, "well", 5)
    await make_well(pool, "well")
    (taken,) = await claiming.claim(1, ["tried"])
    assert taken.open_id == "well"


async def make_well(pool, name):
    await pool.execute(
        "UPDATE refresher.accounts SET videos = 5, wake_at = now() + interval '1 hour'"
        " WHERE open_id = $1",
        name,
    )


# --- In simulation ---


class Count:
    """Requests of each account, and covers that died before they were refreshed."""

    def __init__(self):
        self.requests = Counter()
        self.dead = 0

    def asked(self, account, _sent_at, chunks, videos):
        assert chunks_of(videos) == chunks
        self.requests[account] += chunks

    def refreshed(self, _account, old, answered_at, videos):
        self.dead += videos * (old.expires_at < answered_at)


@pytest.mark.parametrize(
    ("ttl", "lead", "videos", "seconds"),
    [
        pytest.param(60, 20, 20, 2 * HOUR_SECONDS, id="a-minute"),
        pytest.param(21_600, 3600, 100, 45 * DAY_SECONDS, id="six-hours"),
    ],
)
def test_bad_accounts_cost_next_to_nothing(ttl, lead, videos, seconds):
    """One account in five fails for good: the others stay at 100 %, and it takes under 2 %."""
    lead = timedelta(seconds=lead)
    policy = DuePolicy(lead=lead, spread=lead / 2, fallback_ttl=timedelta(hours=6), missing_limit=5)
    plan = Plan(policy=policy, ttl=ttl, seconds=seconds, pace=Pace(600, 0, lease_seconds=60))
    names = [OpenId(f"account-{n}") for n in range(50)]
    bad = set(names[::5])
    fleet = Fleet(START, {name: [Cohort(START + 5, START + 5 + ttl / 3, videos)] for name in names})
    count = Count()
    left = list(Engine(fleet, plan, count, bad).run())
    # Two more each: before an account is isolated, both halves of a chunk are asked for.
    for_bad = sum(count.requests[n] + 2 for n, name in enumerate(names) if name in bad)
    assert for_bad < 0.02 * count.requests.total()
    assert count.dead == 0
    dead = sum(cohort.count for cohort in left if cohort.expires_at < START + seconds)
    assert dead == videos * len(bad)


# --- In a daemon ---


def scripted(world, answer, is_bad=lambda query: (query.open_id or "").startswith("bad")):
    world.emulator.answer_with = lambda query: answer() if is_bad(query) else None


async def answer_others(world):
    """A few of them, whoever claims them: again and again while something is waited for."""
    await until(monotonic() + 0.2)
    for name in Random().sample(range(10), 3):
        await world.add_videos(f"good-{name}", 1)


def asked(world, prefix):
    return sum((arrival.open_id or "").startswith(prefix) for arrival in world.emulator.record)


async def good_ones_valid(world):
    return await world.pool.fetchval(
        "SELECT count(*) FROM refresher.videos WHERE open_id LIKE 'good%' AND cover_expires_at > now()"
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["forbidden", "failed", "unknown", "html", "silent"])
async def test_bad_accounts_hold_nobody_up(serve, start, kind):
    """Those that have waited longest all fail for good: the others are fresh within seconds."""
    world = await serve(latency_seconds=0.02)
    for number in range(10):
        await world.add_account(f"bad-{number}", videos=20)
    for number in range(40):
        await world.add_account(f"good-{number}", videos=20)
    scripted(world, KINDS[kind])
    daemon = await start(world, request_timeout_seconds=4)
    begun = monotonic()

    async def fresh():
        return await good_ones_valid(world) == 800

    await eventually(fresh, "all good covers", seconds=25)

    async def isolated():
        await answer_others(world)  # or nobody could know that the bad ones fail by themselves
        return daemon.events("account.isolated")

    await eventually(isolated, "an isolated account")
    assert daemon.events("upstream.lost") == []
    # New videos are asked for within a poll (of five seconds), as ever.
    await world.add_videos("good-1", 1)
    good = await world.pool.fetchval(
        "SELECT count(*) FROM refresher.videos WHERE open_id LIKE 'good%'"
    )

    async def asked_for():
        return await good_ones_valid(world) == good

    await eventually(asked_for, "the new video", seconds=7)
    await until(max(begun + 30, monotonic()))
    assert daemon.events("upstream.lost") == []
    assert asked(world, "bad") <= 200
    (first, *_) = daemon.events("account.isolated")
    assert first["failures"] == ISOLATED_AFTER
    assert 30 <= first["retry_in_seconds"] <= 60
    told = Counter(event["open_id"] for event in daemon.events("account.isolated"))
    assert set(told.values()) == {1}


@pytest.mark.parametrize("kind", ["forbidden", "failed", "silent"])
async def test_two_bad_accounts_of_seven_hold_back_no_new_video(serve, start, kind):
    """Again and again while they fail: it is asked for within a poll."""
    world = await serve()
    for number in range(7):
        await world.add_account(f"{'bad' if number < 2 else 'good'}-{number}", videos=20)
    scripted(world, KINDS[kind])
    daemon = await start(world, request_timeout_seconds=3)
    await eventually(lambda: _has_valid(world, 100), "all good covers")
    for added in range(1, 9):
        await world.add_videos("good-6", 1)
        await eventually(partial(_has_valid, world, 100 + added), "the new video", seconds=4)
        await until(monotonic() + 1)
    assert daemon.events("upstream.lost") == []


async def _has_valid(world, covers):
    return await good_ones_valid(world) >= covers


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "order", "seconds"),
    [
        ("silent", "first", 100),
        ("silent", "last", 100),
        # Past the moment at which what was not asked for in time is dead.
        *((kind, "interleaved", 45) for kind in KINDS if kind not in {"silent", "none"}),
    ],
)
async def test_one_bad_account_in_five(kind, order, seconds):
    """The run of benchmarks/bad_accounts.py: no good cover dies, and the bad ones cost little."""
    outcome = await measure(Run(kind=kind, order=order, seconds=seconds))
    assert show(f"{kind}, {order}", outcome)


async def test_an_account_recovers(serve, start):
    """Once it is answered again, that is said, and it is worked as any other."""
    world = await serve()
    await world.add_account("bad", videos=45)
    for number in range(5):
        await world.add_account(f"good-{number}", videos=20)
    scripted(world, KINDS["failed"])
    daemon = await start(world)

    async def has_failed():
        return await world.pool.fetchval(
            "SELECT failures > 0 FROM refresher.accounts WHERE open_id = 'bad'"
        )

    await eventually(has_failed, "the first failure")
    await world.add_account("late", videos=20)  # others are answered, also since it fails
    said = await daemon.until_event("account.isolated")
    assert (said["open_id"], said["code"], said["http_status"]) == ("bad", "internal_error", 500)
    assert said["log_id"]
    world.emulator.answer_with = None
    await world.pool.execute(  # its wait is over
        "UPDATE refresher.accounts SET wake_at = now(), next_slot_at = now() WHERE open_id = 'bad'"
    )
    await world.until_valid(165)
    recovered = await daemon.until_event("account.recovered")
    assert recovered["open_id"] == "bad"
    assert 0 < recovered["isolated_seconds"] < 60
    assert await count_isolated(world.pool) == 0


@pytest.mark.parametrize(
    ("replicas", "videos", "failures"),
    [
        pytest.param(1, 60, 0, id="one-of-sixty"),
        pytest.param(3, 10, 0, id="one-of-ten-and-three-replicas"),
        pytest.param(1, 10, 2, id="after-a-restart-or-429s"),
    ],
)
async def test_a_video_that_spoils_its_chunks_is_found(serve, start, replicas, videos, failures):
    """It makes TikTok answer 500: the others get their covers, and it is asked rarely.

    Whoever has seen the failures before: the account is not isolated for it.
    """
    world = await serve(latency_seconds=0.02)
    ids = await world.add_account("ana", videos=videos)
    for number in range(20):
        await world.add_account(f"good-{number}", videos=5)
    await world.pool.execute(
        "UPDATE refresher.accounts SET failures = $1 WHERE open_id = 'ana'", failures
    )
    spoils = ids[7]
    scripted(world, KINDS["failed"], lambda query: spoils in query.video_ids)
    daemons = [await start(world, poll_seconds=0.3) for _ in range(replicas)]

    def told(event):
        return [line for daemon in daemons for line in daemon.events(event)]

    async def is_put_off():
        await answer_others(world)
        return told("account.isolated") or await world.pool.fetchval(
            "SELECT refusal = 'internal_error' AND due_at > now() + interval '50 minutes'"
            " FROM refresher.videos WHERE video_id = $1",
            spoils,
        )

    await eventually(is_put_off, "the video to be put off", seconds=90)
    assert told("account.isolated") == []

    async def fresh():
        return (
            await world.pool.fetchval(
                "SELECT count(*) FROM refresher.videos WHERE open_id = 'ana'"
                " AND cover_expires_at > now()"
            )
            == videos - 1
        )

    await eventually(fresh, "the other covers")
    (rejected,) = told("video.rejected")
    assert (rejected["video_id"], rejected["reason"]) == (spoils, "internal_error")
    assert sum(spoils in arrival.video_ids for arrival in world.emulator.record) <= 16


async def test_an_account_that_was_isolated_for_two_of_its_videos_recovers(serve, start):
    """Neither half of its chunk was answered: it is tried with one video, another one each time."""
    world = await serve()
    ids = await world.add_account("ana", videos=10)
    await world.add_account("good", videos=20)
    scripted(world, KINDS["failed"], lambda query: {ids[1], ids[8]} & set(query.video_ids))
    await world.pool.execute(
        "UPDATE refresher.accounts SET failures = 3, isolated_since = now(), isolated_reason = 'x'"
        " WHERE open_id = 'ana'"
    )
    daemon = await start(world, poll_seconds=0.2)

    async def recovered():
        await world.pool.execute(  # its wait is over
            "UPDATE refresher.accounts SET wake_at = now(), next_slot_at = now()"
            " WHERE isolated_since IS NOT NULL AND lease_owner IS NULL"
        )
        return daemon.events("account.recovered")

    await eventually(recovered, "an answer")
    first = next(one for one in world.emulator.record if one.open_id == "ana")
    assert len(first.video_ids) == 1


async def test_an_account_that_goes_bad_in_the_middle_is_isolated(serve, start):
    """Some of it was answered while the first of its chunks failed: it is the account all the same."""
    world = await serve()
    ids = await world.add_account("ana", videos=60)
    for number in range(20):
        await world.add_account(f"good-{number}", videos=5)
    answered = set()

    def is_bad(query):
        if query.open_id != "ana" or (set(ids[-20:]) == set(query.video_ids) and not answered):
            answered.update(query.video_ids if query.open_id == "ana" else ())
            return False
        return True

    scripted(world, KINDS["failed"], is_bad)
    daemon = await start(world, poll_seconds=0.2)

    async def isolated():
        await answer_others(world)
        return daemon.events("account.isolated")

    await eventually(isolated, "it to be isolated", seconds=60)
    assert answered == set(ids[-20:])
    assert sum(one.open_id == "ana" for one in world.emulator.record) <= 60


@pytest.mark.long
async def test_an_outage_that_meets_isolated_accounts_is_found_and_outlasted(serve, start):
    """Some accounts are isolated, then all are away, and replicas restart: few calls, said once."""
    world = await serve(latency_seconds=0.02)
    for number in range(5):
        await world.add_account(f"bad-{number}", videos=20)
    for number in range(25):
        await world.add_account(f"good-{number}", videos=20)
    scripted(world, KINDS["failed"])
    daemon = await start(world)

    async def isolated():
        return await count_isolated(world.pool) == 5

    await eventually(isolated, "isolated accounts")
    world.emulator.down = "failed"
    sent = len(world.emulator.record)
    await world.pool.execute("UPDATE refresher.videos SET due_at = now(), cover_expires_at = now()")
    await world.pool.execute(
        "UPDATE refresher.accounts SET wake_at = now() WHERE isolated_since IS NULL"
    )
    await daemon.until_event("upstream.lost")
    # All that was in flight, and the trials.
    assert len(world.emulator.record) - sent <= 25 + 2 * LOST_TRIALS
    assert await daemon.stopped() == 0
    daemon = await start(world)
    await daemon.until_event("upstream.lost")
    world.emulator.down = None

    async def fresh():
        return await good_ones_valid(world) == 500

    await eventually(fresh, "all good covers", seconds=20)
    assert len(daemon.events("upstream.lost")) == len(daemon.events("upstream.recovered")) == 1
    assert await count_isolated(world.pool) == 5


async def test_an_account_whose_token_cannot_be_refreshed_is_isolated(serve, start):
    """Its token is dead, and the token endpoint fails for it alone."""
    world = await serve(client_key="key", client_secret="secret")
    await world.add_account("ana", videos=20)
    for number in range(10):
        await world.add_account(f"good-{number}", videos=5)
    await world.pool.execute(
        "UPDATE refresher.accounts SET refresh_token = 'rft.ana',"
        " access_token_expires_at = now() - interval '1 s' WHERE open_id = 'ana'"
    )
    requests = []

    def fails(form):
        requests.append(form["refresh_token"])
        return web.Response(status=500)

    world.emulator.answer_token_with = fails
    daemon = await start(world, tiktok_client_key="key", tiktok_client_secret="secret")

    async def isolated():
        await answer_others(world)
        return daemon.events("account.isolated")

    await eventually(isolated, "it to be isolated", seconds=60)
    (said,) = daemon.events("account.isolated")
    assert (said["open_id"], said["http_status"]) == ("ana", 500)
    assert 30 <= said["retry_in_seconds"] <= 60
    assert len(requests) <= ISOLATED_AFTER + 2
    ((listed, *_),) = [page async for page in list_accounts(world.pool)]
    assert "HTTP 500" in listed["isolated_reason"]
    assert daemon.events("upstream.lost") == []


async def test_an_isolation_that_the_database_has_not_kept_is_not_told(serve, start):
    """As where new tokens came meanwhile: what was learnt with the old ones says nothing."""
    world = await serve(latency_seconds=0.02)
    await world.add_account("ana", videos=20)
    for number in range(20):
        await world.add_account(f"good-{number}", videos=5)
    await world.pool.execute(
        "CREATE FUNCTION public.keep_back() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.isolated_since := NULL; RETURN NEW; END $$;"
        " CREATE TRIGGER keep_back BEFORE UPDATE ON refresher.accounts"
        " FOR EACH ROW WHEN (NEW.isolated_since IS NOT NULL) EXECUTE FUNCTION public.keep_back()"
    )
    scripted(world, KINDS["failed"], lambda query: query.open_id == "ana")
    daemon = await start(world, poll_seconds=0.2)

    async def is_given_back():
        await answer_others(world)
        return await world.pool.fetchval(
            "SELECT isolated_reason IS NOT NULL FROM refresher.accounts WHERE open_id = 'ana'"
        )

    await eventually(is_given_back, "its release", seconds=40)
    assert await daemon.stopped() == 0
    assert daemon.events("account.isolated") == []


async def test_a_claim_that_parks_reports_no_refresh(serve, start):
    """Its one event is the park."""
    world = await serve()
    await world.add_account("ana", videos=20)
    world.emulator.revoke_access_token("ana")
    daemon = await start(world, token_management="external")
    await daemon.until_event("account.parked")
    assert await daemon.stopped() == 0
    assert daemon.events("account.refreshed") == []


async def test_a_slow_answer_is_no_failure(serve, start):
    """TikTok takes three seconds for each: all is fresh, and nothing is said."""
    world = await serve(latency_seconds=3)
    for number in range(30):
        await world.add_account(f"good-{number}", videos=20)
    daemon = await start(world)
    await world.until_valid(600)
    assert daemon.events("upstream.lost") == []
