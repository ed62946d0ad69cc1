"""`refresher forecast` as an operator types it."""

import asyncio
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from refresher.assembly import plan_of
from refresher.domain.credentials import AppCredentials
from refresher.domain.meter import Meter
from refresher.flow.work import Tally
from refresher.postgres.sealing import Sealer
from refresher.postgres.stored import Depth, read_stored
from refresher.settings import read_settings
from refresher.simulation.plan import DAY_SECONDS
from refresher.upkeep import Upkeep
from tests.conftest import check_output, environment, eventually

#: Twenty accounts of sixty videos: three requests each. Their covers live six hours and end from
#: ninety minutes from now on, an account every minute.
ACCOUNTS, VIDEOS, LIFE = 20, 60, 21_600


@pytest.fixture
def run(tmp_path, launcher, database):
    """Run the command to its end; (exit code, stdout, stderr)."""

    async def run(*arguments, **settings):
        code, out, err = await launcher.run(
            "forecast",
            *arguments,
            environment=environment(database, **settings),
            folder=tmp_path,
            seconds=120,
        )
        check_output(out + err)
        return code, out, err

    return run


async def store(pool, accounts=ACCOUNTS, videos=VIDEOS):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, videos, valid, valid_until)"
        " SELECT 'account-' || n, 'act.x', $2, $2, now() + make_interval(mins => 90 + n)"
        " FROM generate_series(1, $1::integer) AS n",
        accounts,
        videos,
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at,"
        " refreshed_at, due_at)"
        " SELECT 'account-' || n, m::text, 'https://c/' || m, at,"
        f" at - interval '{LIFE} seconds', at - interval '1 hour'"
        " FROM generate_series(1, $1::integer) AS n, generate_series(1, $2::integer) AS m,"
        " LATERAL (SELECT date_trunc('second', now()) + make_interval(mins => 90 + n)) AS t (at)",
        accounts,
        videos,
    )


async def test_enough_quota_kills_nothing(run, pool):
    """The verdict comes first, half the quota beside today's, and the exit code is 0."""
    await store(pool)
    code, out, err = await run("--fail-below", "99.9")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "No cover will die within 7 d."
    told = {line.split("  ")[0].strip(): line.split() for line in lines}
    assert told["requests a minute: of a token"][-2:] == ["600", "300"]
    assert told["first death"][-2:] == ["none", "none"]
    assert lines[-1].startswith("It cannot know: ")


async def test_too_little_quota_is_told_with_names(run, pool):
    """Which accounts lose covers, from when on, and exit code 1 for a cron job."""
    await store(pool, videos=600)
    code, out, err = await run(
        "--json", "--days", "1", "--fail-below", "99.9", rate_limit_per_app=1
    )
    told = json.loads(out)
    assert code == 1
    assert err == f"refresher: valid covers fall to {err.split()[5]} below 99.9%\n"
    today = told["today"]
    assert today["limit_per_app"] == 1
    # Six hundred requests a lifetime, with a quota for 360.
    assert 0 < today["accounts"] <= ACCOUNTS
    assert len(today["losses"]) == today["accounts"]
    assert sum(loss["deaths"] for loss in today["losses"]) == today["deaths"]
    assert today["first_death_at"] == min(loss["first_death_at"] for loss in today["losses"])
    assert datetime.fromisoformat(today["first_death_at"]) > datetime.now(UTC)
    assert told["ttl"] == LIFE
    assert told["need"]["on_average"] == pytest.approx(600 * 60 / LIFE)


async def test_an_account_that_loses_covers_may_have_any_name(run, pool):
    """Its control characters do not reach the terminal."""
    await store(pool, videos=600)
    await pool.execute("UPDATE refresher.accounts SET open_id = E'[/bold]\\x1b[2J' || open_id")
    code, out, _ = await run("--days", "1", rate_limit_per_app=1)
    assert code == 0
    assert "[/bold]\ufffd[2Jaccount-" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "arguments",
    ["--fail-below 101", "--fail-below -1", "--fail-below nan", "--limit 0", "--limit x"],
)
async def test_usage_errors_exit_2_with_one_line(run, arguments):
    """The option is named, and nothing is read."""
    code, out, err = await run(*arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert arguments.split()[0] in err


async def test_a_limit_is_compared_with(run, pool):
    """In place of half the quota; every column of a JSON answer has its limits."""
    await store(pool, videos=600)
    code, out, _ = await run("--json", "--days", "1", "--limit", "1")
    told = json.loads(out)
    assert (code, told["halved"]) == (0, False)
    assert (told["today"]["limit_per_app"], told["other"]["limit_per_app"]) == (0, 1)
    assert told["today"]["first_death_at"] is None
    assert told["other"]["deaths"] > 0


# --- What is read ---


async def test_a_large_fleet_is_read_in_part(pool):
    """The large account and some of the others, which stand for the rest; its videos from all over.

    The covers of the large account end in the order of its videos.
    """
    await store(pool, accounts=300, videos=10)
    await store_large(pool, videos=2000)
    read = await read_stored(
        pool, Depth(videos=1000, accounts=50, of_one=100), managed=True, fingerprint=None
    )
    assert (read.accounts, read.videos) == (301, 5000)
    assert read.sampled < 100 + 50 * 10
    weights = read.fleet.weights
    assert weights["large"] == 1
    assert len(weights) <= 51
    stands_for = sum(
        weights[open_id] * cohort.count
        for open_id, cohorts in read.fleet.accounts.items()
        for cohort in cohorts
    )
    assert stands_for == pytest.approx(5000, rel=0.03)
    ends = [cohort.expires_at - read.fleet.now for cohort in read.fleet.accounts["large"]]
    assert min(ends) < 3700
    assert max(ends) > 5000
    assert sum(cohort.count for cohort in read.fleet.accounts["large"]) == 2000


async def test_a_small_fleet_is_read_whole(pool):
    """Each account stands for itself; accounts that are not worked are told apart."""
    await store(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET state = 'needs_scope' WHERE open_id = 'account-1'"
    )
    await pool.execute(
        "UPDATE refresher.accounts SET isolated_since = now() WHERE open_id = 'account-2'"
    )
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token_expires_at = now() + interval '3 days',"
        " rate_share = 0.5, rate_lowered_at = now() WHERE open_id = 'account-3'"
    )
    read = await read_stored(pool, managed=True, fingerprint=None)
    assert (read.accounts, read.videos, read.sampled) == (18, 18 * VIDEOS, None)
    assert set(read.fleet.weights.values()) == {1}
    assert set(read.unasked) == {"needs_scope", "isolated"}
    assert read.unasked["isolated"].covers == VIDEOS
    assert read.unasked["isolated"].first_death_at == pytest.approx(
        read.fleet.now + 92 * 60, abs=60
    )
    assert (read.consents.accounts, read.consents.covers) == (1, VIDEOS)
    # Half of the rate for five minutes on average: as long as a pause of 75 s.
    assert read.fleet.free_at["account-3"] == pytest.approx(read.fleet.now + 75, abs=5)
    assert read.fleet.free_at["account-4"] < read.fleet.now


CLIENT = {"tiktok_client_key": "k", "tiktok_client_secret": "s"}
CREDENTIALS = AppCredentials("k", "s")
FAILED = "UPDATE refresher.accounts SET token_failures = 2"
EXPIRED = "access_token_expires_at = now() - interval '1 hour'"


@pytest.mark.parametrize(
    ("change", "managed", "dead"),
    [
        (f"{EXPIRED}, refresh_token = NULL", True, True),
        (f"{EXPIRED}, refresh_token = 'r', refresh_token_expires_at = now()", True, True),
        (f"{EXPIRED}, refresh_token = 'r'", False, True),
        ("access_token = NULL", True, True),
        (f"{EXPIRED}, refresh_token = 'r'", True, False),
        (f"{EXPIRED}, refresh_token = 'r'; {FAILED}", True, False),
        ("access_token_expires_at = now() + interval '1 hour'", True, False),
        (f"{EXPIRED}, state = 'paused'", True, False),
    ],
    ids=["no refresh token", "ended", "external", "none", "due", "failed", "alive", "paused"],
)
async def test_nobody_asks_with_a_token_that_stays_dead(pool, change, managed, dead):
    """Its account is told apart, with its first death; a renewal that failed may work again."""
    await store(pool, accounts=2)
    changed, _, then = change.partition(";")
    for update in filter(None, (f"UPDATE refresher.accounts SET {changed}", then)):
        await pool.execute(f"{update} WHERE open_id = 'account-1'")
    read = await read_stored(pool, managed=managed, fingerprint=None)
    assert ("dead_token" in read.unasked) == dead
    assert ("account-1" not in read.fleet.accounts) == (dead or "paused" in change)
    assert read.accounts == len(read.fleet.accounts)
    assert read.tokens.accounts == (FAILED in change)
    if dead:
        told = read.unasked["dead_token"]
        assert (told.accounts, told.covers) == (1, VIDEOS)
        assert told.first_death_at == pytest.approx(read.fleet.now + 91 * 60, abs=60)


async def test_the_covers_of_a_dead_token_are_told(run, pool):
    """Below the figures, as no quota saves them; the verdict is not about them."""
    await store(pool)
    await pool.execute(
        f"UPDATE refresher.accounts SET {EXPIRED}, refresh_token = NULL WHERE open_id = 'account-1'"
    )
    _, out, _ = await run(**CLIENT)
    assert out.splitlines()[0] == "No cover that can be asked for will die within 7 d."
    (line,) = [line for line in out.splitlines() if line.startswith("cannot be asked for")]
    assert "60 covers of 1 account dead_token, the first dies at " in line


async def test_a_renewal_that_fails_is_told(pool, run):
    """Right below the verdict: of the accounts that wait for a token, then of the credentials."""
    await store(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET token_failures = 2, token_due_at = now() + interval '2 min'"
        " WHERE open_id IN ('account-1', 'account-2')"
    )
    _, out, _ = await run()
    assert out.splitlines()[1] == (
        "It assumes that the token renewal of 2 accounts with 120 covers, which fails now, will work"
        " again."
    )
    await refuse(pool, CREDENTIALS.fingerprint)
    _, out, _ = await run(**CLIENT)
    assert out.splitlines()[1].startswith(
        "It assumes that the app credentials, which TikTok refused"
    )
    _, out, _ = await run("--json", **CLIENT)
    told = json.loads(out)["tokens"]
    assert (told["accounts"], told["covers"]) == (2, 120)
    assert datetime.fromisoformat(told["client_refused_at"]) < datetime.now(UTC)


async def test_other_credentials_were_refused(run, pool):
    """As `status` tells it: those in use, within ten minutes, and only where they renew tokens."""
    await store(pool)
    fingerprint = CREDENTIALS.fingerprint
    for seconds, managed, asked, refused in (
        (590, True, fingerprint, True),
        (610, True, fingerprint, False),
        (590, True, "x", False),
        (590, True, None, False),
        (590, False, fingerprint, False),
    ):
        await refuse(pool, fingerprint, seconds)
        read = await read_stored(pool, managed=managed, fingerprint=asked)
        assert (read.tokens.client_refused_at is not None) == refused
    await refuse(pool, fingerprint)
    _, out, _ = await run(token_management="external", **CLIENT)
    assert "app credentials" not in out


async def refuse(pool, fingerprint, seconds=60):
    await pool.execute(
        "UPDATE refresher.app SET refused_client = $1,"
        " client_refused_at = now() - make_interval(secs => $2)",
        fingerprint,
        seconds,
    )


async def store_large(pool, videos):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, videos, valid)"
        " VALUES ('large', 'act.x', $1, $1)",
        videos,
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at,"
        " refreshed_at, due_at)"
        " SELECT 'large', (7000000000000000000 + m)::text, 'https://c', at, now(),"
        " at - interval '1 hour'"
        " FROM generate_series(1, $1::integer) AS m,"
        " LATERAL (SELECT now() + make_interval(secs => 3600 + m)) AS t (at)",
        videos,
    )


# --- What a daemon says ---


def upkeep(pool, limit_per_app):
    settings = read_settings(database_url="postgresql:///", rate_limit_per_app=limit_per_app)
    return Upkeep(
        pool,
        Sealer([]),
        "replica",
        "1",
        tally=Tally,
        meter=Meter(),
        paused_since=lambda: None,
        managed=False,
        fingerprint=None,
        limit_per_minute=600,
        plan=plan_of(settings, "hourly", DAY_SECONDS),
        probing=None,
        sessions=None,
        attachments=None,
    )


async def said(unit):
    """The fields of each `forecast.at_risk` that it logs."""
    with capture_logs() as logs:
        await unit
    assert {entry["event"] for entry in logs} <= {"forecast.at_risk"}
    return logs


async def test_a_risk_is_said_once_for_all_replicas_then_every_hour(pool):
    """By the replica whose turn it is; after a look without a risk a new one is said at once."""
    await store(pool, videos=600)
    poor, rich = upkeep(pool, limit_per_app=1), upkeep(pool, limit_per_app=60)
    (warned,) = await said(poor.forecast())
    assert warned["log_level"] == "warning"
    assert 0 < warned["accounts"] <= ACCOUNTS
    assert warned["covers"] > 0
    assert warned["quota_per_minute"] == 1 < warned["quota_needed_per_minute"]
    assert warned["valid_share_after_24_hours"] < 1
    assert await said(poor.forecast()) == []  # another replica's turn has just been
    await age(pool, "forecast_at", minutes=15)
    assert await said(poor.forecast()) == []  # said a quarter of an hour ago
    await age(pool, "forecast_at", minutes=15)
    await age(pool, "risk_said_at", minutes=60)
    assert len(await said(poor.forecast())) == 1
    await age(pool, "forecast_at", minutes=15)
    assert await said(rich.forecast()) == []
    await age(pool, "forecast_at", minutes=15)
    assert len(await said(poor.forecast())) == 1


async def age(pool, column, minutes):
    await pool.execute(
        f"UPDATE refresher.app SET {column} = {column} - make_interval(mins => $1)", minutes
    )


async def test_a_pause_of_everything_is_a_risk(pool, run):
    """Nothing is asked for, so every cover dies at its end; the verdict says why."""
    await store(pool)
    await pool.execute("UPDATE refresher.app SET paused_since = now()")
    (warned,) = await said(upkeep(pool, limit_per_app=0).forecast())
    assert (warned["accounts"], warned["covers"]) == (ACCOUNTS, ACCOUNTS * VIDEOS)
    _, out, _ = await run()
    assert out.startswith("Everything is paused. Covers die from ")


async def test_a_stop_does_not_wait_for_a_forecast(pool):
    """Its thread ends with the task, long before the simulation would."""
    await store(pool, videos=600)
    looked = upkeep(pool, limit_per_app=1)
    looked.plan = replace(looked.plan, seconds=3_000 * DAY_SECONDS)
    before = threading.active_count()
    task = asyncio.create_task(looked.forecast())

    async def simulating():
        return threading.active_count() > before

    await eventually(simulating, "a thread that simulates")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 10)
