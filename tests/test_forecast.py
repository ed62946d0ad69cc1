"""`refresher forecast` as an operator types it."""

import json
from datetime import UTC, datetime

import pytest

from tests.conftest import check_output, environment

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
