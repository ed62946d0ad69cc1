"""`refresher simulate` as an operator types it, and the fleet as it is stored."""

import asyncio
import json
import subprocess
import sys
from functools import partial

import pytest

from refresher.domain.cohorts import NO_COVER, Cohort
from refresher.postgres.fleet import PAGE, read_fleet
from tests.conftest import check_output, environment

Y2030 = 1_893_456_000
PNG = b"\x89PNG\r\n\x1a\n"
SMALL = ("simulate", "--videos", "3000", "--accounts", "40", "--days", "1")
WITHOUT_MATPLOTLIB = (
    "import sys; sys.modules['matplotlib'] = None; from refresher.cli import main; main()"
)


@pytest.fixture
def run(tmp_path, launcher):
    """Run the command to its end; (exit code, stdout, stderr)."""

    async def run(*arguments, **settings):
        code, out, err = await launcher.run(
            *arguments,
            environment=environment(settings.pop("database", ""), **settings),
            folder=tmp_path,
            seconds=120,
        )
        check_output(out + err)
        return code, out, err

    return run


async def test_a_made_up_fleet_needs_no_database(run):
    """Names and texts in columns; nothing has to be set."""
    code, out, err = await run(*SMALL)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert lines[0].split(maxsplit=1) == [
        "fleet",
        "3,000 videos of 40 accounts, 704 in the largest",
    ]
    assert lines[-1].split() == ["first", "death", "none", "within", "1", "d"]


async def test_programs_get_json(run):
    """All figures, and the series by the hour."""
    code, out, _ = await run(*SMALL, "--json", "--ttl", "21600", "--app-limit", "60")
    told = json.loads(out)
    assert (code, told["accounts"], told["videos"], len(told["hours"])) == (0, 40, 3000, 24)
    assert told["requests"]["sent"] == sum(hour["requests"] for hour in told["hours"])
    assert told["app"]["when_due"] > told["videos"]
    assert told["plan"] == {
        "fleet": "made",
        "seed": 0,
        "ttl": 21600,
        "days": 1,
        "limit_per_token": 600,
        "limit_per_app": 60,
        "lead_seconds": 3600,
        "spread_seconds": 1800,
    }


async def test_settings_are_the_defaults_and_options_override_them(run):
    """What the daemon would do, unless asked otherwise."""
    _, as_set, _ = await run(*SMALL, "--json", rate_limit_per_token=60, lead_seconds=7200)
    _, as_given, _ = await run(
        *SMALL, "--json", "--limit", "60", "--lead", "7200", rate_limit_per_token=7
    )
    _, usual, _ = await run(*SMALL, "--json")
    assert as_set == as_given != usual


async def test_the_same_command_tells_the_same(run):
    """Chance comes from the seed."""
    first, second = await asyncio.gather(run(*SMALL, "--json"), run(*SMALL, "--json"))
    assert first == second
    assert await run(*SMALL, "--json", "--seed", "1") != first


async def test_a_plot_is_written(run, tmp_path):
    """A PNG, beside what is printed: of a fleet that lives, and of one that does not."""
    code, out, _ = await run(*SMALL, "--plot", "alive.png", "--app-limit", "600")
    assert (code, out.split()[0]) == (0, "fleet")
    code, _, _ = await run(*SMALL, "--plot", "dying.png", "--limit", "1", "--ttl", "7200")
    assert code == 0
    alive, dying = ((tmp_path / name).read_bytes() for name in ("alive.png", "dying.png"))
    assert alive[:8] == dying[:8] == PNG
    assert alive != dying


def test_without_matplotlib_the_extra_is_named(tmp_path):
    """Before the long work, in one line; without --plot nothing needs it."""
    command = (sys.executable, "-c", WITHOUT_MATPLOTLIB, *SMALL)
    called = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, check=False)
    done = called([*command, "--plot", "file.png"], env=environment(""))
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "refresher: --plot: matplotlib is missing: pip install '.[plot]'\n",
    )
    assert called(command, env=environment("")).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param("", "expected --videos and --accounts, or", id="nothing"),
        pytest.param("--videos 5", "expected --videos and --accounts, or", id="half"),
        pytest.param("--from-database --videos 5", "expected --videos and", id="both"),
        pytest.param("--from-database", "REFRESHER_DATABASE_URL", id="no-database"),
        pytest.param("--videos 3 --accounts 5", "--videos: expected 5 to 250,000", id="too-few"),
        pytest.param(
            "--videos 5 --accounts 5 --ttl often", "--ttl: expected hourly or seconds", id="ttl"
        ),
        pytest.param(
            "--videos 5 --accounts 5 --ttl 59",
            "--ttl: expected hourly or seconds, 60 to 34560000, not '59'",
            id="short-ttl",
        ),
        pytest.param(
            "--videos 5 --accounts 5 --lead -1", "--lead: expected 0 or more, not '-1'", id="lead"
        ),
        pytest.param(
            "--videos 5 --accounts 5 --lead 1e9", "--lead: expected 31536000 or less", id="long"
        ),
        pytest.param(
            "--videos 5 --accounts 5 --limit 1000001",
            "--limit: expected 1000000 or less, not '1000001'",
            id="limit",
        ),
        pytest.param(
            "--videos 5 --accounts 5 --days 0", "--days: expected 0.001 or more", id="days"
        ),
        pytest.param("--videos 5 --accounts 5 --plot x.jpg", "--plot: expected", id="no-png"),
        pytest.param("--videos 5 --accounts 5 --plot folder.png", "--plot: expected", id="folder"),
        pytest.param("--videos 5 --accounts 5 --plot no/x.png", "--plot: expected", id="no-folder"),
    ],
)
async def test_usage_errors_exit_2_with_one_line(run, tmp_path, arguments, complaint):
    """What is wrong, and what is expected."""
    (tmp_path / "folder.png").mkdir()
    code, out, err = await run("simulate", *arguments.split())
    assert (code, out) == (2, "")
    assert err.startswith("refresher: ")
    assert complaint in err
    assert err.count("\n") == 1


# --- The fleet as it is stored ---


async def store(pool, open_id, videos, due_in, expires_in=None):
    """Videos that fall due and expire so many seconds after the start of 2030."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id) VALUES ($1) ON CONFLICT DO NOTHING", open_id
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, due_at,"
        " cover_expires_at) SELECT $1, left(md5(random()::text), 20),"
        " CASE WHEN $4::float8 IS NOT NULL THEN 'url' END,"
        " to_timestamp($3), to_timestamp($4) FROM generate_series(1, $2::integer)",
        open_id,
        videos,
        Y2030 + due_in,
        None if expires_in is None else Y2030 + expires_in,
    )


async def test_stored_videos_are_counted_by_when_they_are_due(pool):
    """To the second, account by account; what asking cannot help is told apart."""
    await store(pool, "ana", 3, 5.2, 60.0)
    await store(pool, "ana", 4, 5.7, 60.9)
    await store(pool, "ana", 2, 1)
    await store(pool, "ben", 1, 7, 8)
    await pool.execute(
        "UPDATE refresher.videos SET misses = 3, missing_since = now() WHERE open_id = 'ben'"
    )
    await store(pool, "ben", 1, 9)
    await pool.execute(
        "UPDATE refresher.videos SET misses = 1, refusal = 'x' WHERE cover_image_url IS NULL"
        " AND open_id = 'ben'"
    )
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('cem')")
    fleet = await read_fleet(pool)
    assert fleet.accounts == {
        "ana": [Cohort(Y2030 + 1, NO_COVER, 2), Cohort(Y2030 + 5, Y2030 + 60, 7)],
        "ben": [
            Cohort(Y2030 + 7, Y2030 + 8, 1, misses=3, missing=True),
            Cohort(Y2030 + 9, NO_COVER, 1, misses=1, alone=True),
        ],
        "cem": [],
    }
    assert fleet.videos == 11
    now = await pool.fetchval("SELECT extract(epoch FROM now())::float8")
    assert fleet.now == pytest.approx(now, abs=60)


async def test_only_active_accounts_are_read_page_by_page(pool):
    """However many there are; a parked account is asked for nothing."""
    accounts = 2 * PAGE + 1
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, state) SELECT 'account-' || n,"
        " CASE WHEN n % 2 = 0 THEN 'active' ELSE 'paused' END"
        " FROM generate_series(1, $1::integer) AS n",
        2 * accounts,
    )
    await pool.execute("INSERT INTO refresher.videos SELECT open_id, '1' FROM refresher.accounts")
    fleet = await read_fleet(pool)
    assert len(fleet.accounts) == fleet.videos == accounts


async def test_the_stored_fleet_is_simulated(run, database, pool):
    """The real distribution, from where it stands: 50 new covers come at once."""
    await store(pool, "ana", 50, -1e9)
    code, out, err = await run("simulate", "--from-database", "--json", database=database)
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert (told["accounts"], told["videos"], told["first_death_seconds"]) == (1, 50, None)
    assert (told["lowest_valid_share"], told["last_valid_share"]) == (0, 1)
    assert (told["plan"]["fleet"], told["plan"]["seed"]) == ("from-database", None)
    # Every 22 h of a week.
    assert told["requests"]["sent"] == 3 * 8


async def test_nothing_stored_is_nothing_to_simulate(run, database, pool):
    """Said, rather than that all of it is valid."""
    await store(pool, "ana", 0, 0)
    assert await run("simulate", "--from-database", database=database) == (
        2,
        "",
        "refresher: no active account has a video: nothing to simulate\n",
    )


async def test_a_database_that_is_away_is_said_in_one_line(run):
    """As by every command."""
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    code, out, err = await run("simulate", "--from-database", database=url)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("refresher: database: ")
