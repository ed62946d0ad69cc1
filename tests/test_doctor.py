"""What `doctor` finds in real databases, of what is wrong and of what is not."""

import asyncio
import json
import re
import socket
from datetime import timedelta

import asyncpg
import pytest
from aiohttp import web
from cryptography.fernet import Fernet

from refresher import doctor
from refresher.domain.checkup import storage
from refresher.domain.checkup.checks import judged, verdict
from refresher.domain.checkup.findings import Outcome
from refresher.domain.credentials import AppCredentials
from refresher.postgres.migrate import migrate
from refresher.postgres.sealing import Sealer
from refresher.settings import read_settings
from tests import faults
from tests.conftest import administer, environment, eventually, free_port, partition_videos
from tests.proxy import Proxy
from tests.terminal import ESCAPE, on_terminal

OK, WARNING, PROBLEM, SKIPPED = Outcome
CREDENTIALS = {"tiktok_client_key": "key", "tiktok_client_secret": "secret"}


async def findings(database, *, online=False, **settings):
    """Of each check, by its id: what it found."""
    read = read_settings(database_url=database, **settings)
    found = {}
    for check, finding in judged(await doctor.examine(read, online=online)):
        found.setdefault(check.id, []).append(finding)
    return found


async def outcome(database, check, **settings):
    """The only finding of a check: its outcome and text."""
    (finding,) = (await findings(database, **settings))[check]
    assert bool(finding.remedy) == (finding.outcome in {WARNING, PROBLEM})
    return finding.outcome, finding.text


# --- As a command ---


@pytest.fixture
def run(database, tmp_path, launcher):
    """Run `doctor` to its end; (exit code, stdout, stderr)."""

    async def run(*options, url=database, **settings):
        return await launcher.run(
            "doctor", *options, environment=environment(url, **settings), folder=tmp_path
        )

    return run


async def test_groups_and_a_verdict_last(run):
    """Of a fresh database, that nothing runs: exit 1, a line for each, nothing on stderr."""
    code, out, err = await run()
    assert (code, err) == (1, "")
    *_, verdict = out.splitlines()
    assert verdict == "1 problem, 2 warnings, 10 skipped"
    assert out.startswith("settings\n  ✓ every setting can be read\n")
    assert "  ✗ no replica runs\n    → start refresher run\n" in out
    assert "  - reachable, clock: asked only with --online\n" in out


async def test_a_terminal_gets_lines_of_its_width(database):
    """Of 60 columns: what goes on stands below the text, the remedy below its finding."""
    written = await on_terminal("doctor", database, code=1, COLUMNS="60")
    lines = ESCAPE.sub("", written).splitlines()
    assert max(map(len, lines)) <= 60
    at = lines.index("  ‼ REFRESHER_TOKEN_KEYS is not set: tokens are stored in")
    assert lines[at + 1 : at + 3] == ["    plain text", "    → see docs/security.md, Keys"]


async def test_json_has_every_check(run):
    """In the order of the list, each with outcome, text and remedy."""
    listed = json.loads((await run("--list", "--json"))[1])
    code, out, _ = await run("--json")
    told = json.loads(out)
    assert code == 1
    assert [each["id"] for each in told["findings"]] == [each["id"] for each in listed]
    assert {tuple(each) for each in told["findings"]} == {("id", "outcome", "text", "remedy")}
    assert told["verdict"] == "1 problem, 2 warnings, 10 skipped"
    plain = (await run("--list"))[1]
    assert [line.split()[0] for line in plain.splitlines()] == [each["id"] for each in listed]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"url": "postgresql://u@127.0.0.1:9/d"}, "✗ 127.0.0.1:9/d: "),
        ({"url": ""}, "✗ REFRESHER_DATABASE_URL is not set: expected a URL"),
        ({"lead_seconds": "soon"}, "✗ REFRESHER_LEAD_SECONDS: expected a number, not 'soon'"),
        ({"url": "mysql://u:pass-word-of-the-tests@h/d"}, "✗ REFRESHER_DATABASE_URL: expected"),
    ],
    ids=["away", "unset", "wrong", "secret"],
)
async def test_a_problem_is_told_and_ends_with_1(run, settings, text):
    """What needs neither database nor right settings is checked all the same."""
    code, out, err = await run(leed_seconds="7", **settings)
    assert (code, err) == (1, "")
    assert text in out
    assert "REFRESHER_LEED_SECONDS is no setting and has no effect\n    → did you mean" in out
    assert out.splitlines()[-1].startswith("1 problem, 1 warning, ")


async def test_mistyped_names_in_env_files_are_told_with_their_place(run, tmp_path):
    """With the name that is meant; a name without a value is a problem."""
    (tmp_path / ".env").write_text("\nREFRESHER_LAED_SECONDS=7\nREFRESHER_XYZ=1\n")
    _, out, _ = await run()
    assert (
        "  ‼ REFRESHER_LAED_SECONDS (.env:2) is no setting and has no effect\n"
        "    → did you mean REFRESHER_LEAD_SECONDS?\n" in out
    )
    assert "REFRESHER_XYZ (.env:3) is no setting and has no effect\n    → remove it, or see" in out
    (tmp_path / ".env").write_text("REFRESHER_LEAD_SECONDS\n")
    code, out, _ = await run()
    assert code == 1
    assert "✗ .env:1: REFRESHER_LEAD_SECONDS: expected NAME=value" in out


# --- The database ---


async def test_a_database_that_says_nothing_is_not_waited_for():
    """All is told in time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/d"
        async with asyncio.timeout(doctor.SECONDS + 5):
            assert await outcome(url, "database.reachable") == (PROBLEM, doctor.TIMED_OUT)


async def test_a_table_that_is_locked_is_not_waited_for(database, pool):
    """What needs it is skipped; what does not, is told."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE refresher.videos IN ACCESS EXCLUSIVE MODE")
        found = await findings(database)
    told = ("freshness.lead", "storage.scatter", "storage.autovacuum", "tokens.keys")
    assert [found[name][0].outcome for name in told] == [SKIPPED, SKIPPED, OK, WARNING]
    unread = [finding for group in found.values() for finding in group if finding.is_unchecked]
    assert found["freshness.lead"][0] in unread
    assert f"{len(unread)} not checked" in verdict(one for group in found.values() for one in group)


async def test_a_database_that_is_far_away_is_given_more_time():
    """100 ms there and back: nothing is left out for time."""
    with faults.own_server() as server:
        await migrate(server.url)
        async with Proxy("127.0.0.1", server.port) as proxy:
            proxy.slow(0.05)
            found = await findings(server.url_of("postgres", proxy.port))
    assert not [finding for group in found.values() for finding in group if finding.is_unchecked]


async def test_a_schema_that_is_missing_or_old(database, empty_database, pool):
    """Each with the command that helps."""
    assert await outcome(empty_database, "database.migrated") == (
        PROBLEM,
        "there are no tables in schema refresher",
    )
    assert (await outcome(database, "database.migrated"))[0] is OK
    await pool.execute("UPDATE refresher.alembic_version SET version_num = '0011'")
    found = await findings(database)
    assert "is at revision 0011, this version needs" in found["database.migrated"][0].text
    assert found["storage.scatter"][0].outcome is SKIPPED


async def test_clocks_that_differ(database, monkeypatch):
    """Only this machine's is off: a warning, as the database's decides."""
    assert (await outcome(database, "database.clock"))[0] is OK
    now = doctor._wall_clock
    monkeypatch.setattr(doctor, "_wall_clock", lambda: now() + timedelta(hours=2, seconds=30))
    found = await outcome(database, "database.clock")
    assert found == (WARNING, "the database's clock is 2 h behind this machine's")


@pytest.mark.skipif(not faults.pgbouncer_program(), reason="PgBouncer is not installed")
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("transaction", (WARNING, "behind a pooler (transaction mode), and for the role")),
        ("session", (WARNING, "behind a pooler (session mode), and for the role")),
        ("statement", (PROBLEM, "the pooler allows no transactions")),
    ],
)
async def test_poolers(mode, expected):
    """Each mode is told; what we cannot set there is to be set for the role."""
    with faults.own_server() as server:
        async with faults.pgbouncer(server, f"pool_mode = {mode}") as port:
            url = server.url_of("postgres", port)
            worst, text = await outcome(url, "database.pooler")
            assert (worst, text[: len(expected[1])]) == expected
            if worst is WARNING:
                await administer(
                    server.url,
                    "ALTER ROLE postgres SET lock_timeout = '5s'",
                    "ALTER ROLE postgres SET jit = off",
                )
                await administer(
                    server.url,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
                )
                assert (await outcome(url, "database.pooler"))[0] is OK
        assert (await outcome(server.url, "database.pooler")) == (OK, "no pooler in between")


# --- Tokens and TikTok ---


async def test_keys_that_do_not_open_all_tokens(database, pool):
    """How many, and one of them by name."""
    key, other = (Fernet.generate_key().decode() for _ in range(2))
    assert (await outcome(database, "tokens.keys"))[0] is WARNING
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', $1), ('ben', $2)",
        Sealer([key]).seal("act.x"),
        Sealer([other]).seal("act.y"),
    )
    worst, text = await outcome(database, "tokens.keys", token_keys=key)
    assert worst is PROBLEM
    assert text.startswith("no key opens the tokens of 1 of the 2 accounts with sealed ones, ben")
    assert (await outcome(database, "tokens.keys", token_keys=f"{key},{other}"))[0] is OK
    assert (await outcome(database, "tokens.keys"))[0] is PROBLEM


async def test_tokens_are_opened_as_long_as_there_is_time(database, pool, monkeypatch):
    """It says so."""
    key = Fernet.generate_key().decode()
    sealed = Sealer([key]).seal("act.x")
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token)"
        " SELECT n, $1 FROM generate_series(1, 600) AS n",
        sealed,
    )
    monkeypatch.setattr(doctor, "TOKEN_SECONDS", 0.0)
    assert await outcome(database, "tokens.keys", token_keys=key) == (
        OK,
        "the keys open the tokens of the first 500 accounts with any",
    )


async def test_app_credentials(database, pool):
    """Missing ones, those of another program's, and ones that TikTok has refused."""
    check = "tiktok.credentials"
    assert (await outcome(database, check))[0] is WARNING
    assert (await outcome(database, check, token_management="external"))[0] is OK
    assert (await outcome(database, check, **CREDENTIALS))[0] is OK
    fingerprint = AppCredentials("key", "secret").fingerprint
    refuse = (
        "UPDATE refresher.app SET refused_client = $1, client_refused_at = now() - $2::interval"
    )
    await pool.execute(refuse, fingerprint, timedelta(seconds=100))
    worst, text = await outcome(database, check, **CREDENTIALS)
    assert worst is PROBLEM
    assert re.search(r"refused the app credentials 1 min 4\d s ago", text)
    await pool.execute(refuse, fingerprint, timedelta(minutes=11))
    assert (await outcome(database, check, **CREDENTIALS))[0] is OK


async def test_tiktok_is_asked_without_a_token(database, serve):
    """One request, of which no account pays."""
    world = await serve()
    await world.add_account("ana", videos=3)
    found = await findings(database, online=True, tiktok_base_url=world.base_url)
    assert [found[f"tiktok.{name}"][0].outcome for name in ("reachable", "clock")] == [OK, OK]
    assert "401 access_token_invalid" in found["tiktok.reachable"][0].text
    assert [arrival.error_code for arrival in world.emulator.record] == ["access_token_invalid"]
    await findings(database, tiktok_base_url=world.base_url)
    assert len(world.emulator.record) == 1


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (200, "<html>Log in", PROBLEM),
        (503, "busy", WARNING),
        (401, '{"error":{"code":"access_token_invalid"}}', OK),
    ],
)
async def test_who_answers_for_tiktok(database, status, text, expected):
    """A portal of the network, an outage, the API itself; its clock against the database's."""

    async def answer(_):
        return web.Response(
            status=status, text=text, headers={"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}
        )

    app = web.Application()
    app.router.add_post("/v2/video/query/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    found = await findings(database, online=True, tiktok_base_url=f"http://127.0.0.1:{port}")
    await runner.cleanup()
    assert found["tiktok.reachable"][0].outcome is expected
    assert found["tiktok.clock"][0].outcome is WARNING
    assert "ahead of TikTok's" in found["tiktok.clock"][0].text


async def test_a_tiktok_that_is_away(database):
    """The reason is told; the rest goes on."""
    found = await findings(database, online=True, tiktok_base_url=f"http://127.0.0.1:{free_port()}")
    assert found["tiktok.reachable"][0].outcome is PROBLEM
    assert "Connect" in found["tiktok.reachable"][0].text
    assert [found["tiktok.clock"][0].outcome, found["role.rows"][0].outcome] == [SKIPPED, OK]


# --- Accounts ---


async def test_parked_accounts(database, pool):
    """How many, since when, and how to list them; a problem where all are."""
    check = "accounts.parked"
    assert await outcome(database, check) == (OK, "no account is parked")
    await store(pool)
    park = (
        "UPDATE refresher.accounts SET state = $2, state_since = now() - interval '3 hours'"
        " WHERE open_id LIKE $1"
    )
    await pool.execute(park, "account-1", "needs_scope")
    (found,) = (await findings(database))[check]
    assert (found.outcome, found.text) == (
        WARNING,
        "1 account parked (1 needs_scope), the first for 3 h",
    )
    assert "authorize again, for needs_scope with video.list, see refresher" in found.remedy
    assert "refresher accounts list --state needs_scope --csv" in found.remedy
    await pool.execute(park, "%", "needs_reauthorization")
    assert (await outcome(database, check))[0] is PROBLEM


@pytest.mark.parametrize(
    ("change", "settings", "dead"),
    [
        ("refresh_token = NULL", CREDENTIALS, 1),
        ("refresh_token_expires_at = now()", CREDENTIALS, 1),
        ("token_failures = 1", CREDENTIALS, 1),
        ("token_failures = 0", {}, 1),
        ("token_failures = 0", CREDENTIALS, 0),
        ("state = 'paused'", {}, 0),
    ],
    ids=["none", "ended", "failed", "no credentials", "to be renewed", "paused"],
)
async def test_access_tokens_that_stay_dead(refresher, database, pool, change, settings, dead):
    """What nobody renews, or could renew so far; listed by name. What is only due is none."""
    await store(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET access_token_expires_at = now() - interval '1 hour',"
        " refresh_token = 'rft.x' WHERE open_id = 'account-2'"
    )
    await pool.execute(f"UPDATE refresher.accounts SET {change} WHERE open_id = 'account-2'")
    worst, text = await outcome(database, "accounts.tokens", **settings)
    assert (worst, text.startswith("1 active account with a dead")) == (
        (WARNING, True) if dead else (OK, False)
    )
    _, out, _ = await refresher("accounts", "list", "--state", "dead_token", "--json", **settings)
    assert [one["open_id"] for one in json.loads(out)] == ["account-2"] * dead


async def test_missing_videos(database, pool):
    """By the counts of the accounts, from 1 % on; a problem where all are."""
    check = "accounts.missing"
    assert await outcome(database, check) == (OK, "0 of 0 videos are missing or gone")
    await store(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET missing = 3, unreachable = 1 WHERE open_id = 'account-1'"
    )
    assert await outcome(database, check) == (
        WARNING,
        "TikTok leaves out 4 videos (1 of them gone: asked for only rarely)",
    )
    assert (await findings(database))[check][0].remedy == (
        "see refresher videos list --state missing and refresher videos list --state gone;"
        " delete what no longer exists, see docs/tables.md"
    )
    await pool.execute(
        "UPDATE refresher.accounts SET missing = 11, videos = 10000 - 9900 * (open_id = 'account-1')::int,"
        " unreachable = 0"
    )
    assert await outcome(database, check) == (
        WARNING,
        "TikTok leaves out 33 videos, 11 of the 100 of account account-1",
    )
    await pool.execute("UPDATE refresher.accounts SET missing = videos")
    assert (await outcome(database, check))[0] is PROBLEM


# --- Freshness ---


async def test_covers_that_have_expired(database, pool):
    """Those that can be kept alive are a problem, those of paused accounts are none."""
    check = "freshness.covers"
    await store(pool, life=timedelta(hours=-1))
    assert await outcome(database, check) == (
        PROBLEM,
        "dead covers that could have been kept alive: 300",
    )
    await pool.execute("UPDATE refresher.accounts SET state = 'paused'")
    assert (await outcome(database, check))[0] is OK


async def test_what_has_been_due_for_longer_than_the_lead(database, pool):
    """Covers are asked for that long before they expire."""
    check = "freshness.backlog"
    assert await outcome(database, check) == (OK, "nothing is due")
    await store(pool)
    await pool.execute("UPDATE refresher.videos SET due_at = now() - interval '10 minutes'")
    found, text = await outcome(database, check)
    assert (found, text.startswith("videos that are due: 300, the first for 10 min")) == (OK, True)
    found, text = await outcome(database, check, lead_seconds=300)
    assert found is PROBLEM
    assert text.endswith(", but a cover is asked for 5 min before it dies")


async def test_a_pause_of_everything(database, pool):
    """A problem once covers have expired."""
    check = "freshness.paused"
    assert (await outcome(database, check))[0] is OK
    await pool.execute("UPDATE refresher.app SET paused_since = now() - interval '2 hours'")
    assert await outcome(database, check) == (
        WARNING,
        "everything has been paused for 2 h: no cover is asked for",
    )
    await store(pool, life=timedelta(hours=-1))
    (paused,) = (await findings(database))[check]
    assert paused.outcome is PROBLEM
    assert "refresher resume --all" in paused.remedy


async def store(pool, *, accounts=3, videos=100, life=timedelta(hours=24)):
    """Store accounts and, in turn, a video of each, with covers that live so long."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, videos)"
        " SELECT 'account-' || n, 'act.x', $2 FROM generate_series(1, $1::integer) AS n",
        accounts,
        videos,
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, reserve,"
        " refreshed_at, cover_expires_at)"
        " SELECT 'account-' || n, m, 'https://c/' || repeat('x', 300), NULL, now(),"
        " now() + $3::interval"
        " FROM generate_series(1, $2::integer) AS m, generate_series(1, $1::integer) AS n"
        " ORDER BY m, n",
        accounts,
        videos,
        life,
    )
    await pool.execute("ANALYZE refresher.accounts, refresher.videos")


@pytest.mark.parametrize(
    ("life", "expected", "text"),
    [
        (timedelta(hours=24), OK, "covers live 1 d"),
        (timedelta(hours=3), OK, "Lead and spread are cut to the last third"),
        (timedelta(minutes=40), WARNING, "covers live 40 min"),
    ],
)
async def test_lead_and_spread_against_the_lives_of_covers(database, pool, life, expected, text):
    """A life that is shorter than the lead is worth a warning."""
    await store(pool, life=life)
    worst, told = await outcome(database, "freshness.lead")
    assert worst is expected
    assert text in told


@pytest.mark.parametrize(
    ("videos", "limit", "expected"),
    [
        (100, 600, OK),
        (14_000_000, 600, WARNING),
        (16_500_000, 600, WARNING),
        (20_000_000, 600, PROBLEM),
        (10**9, 0, OK),
    ],
)
async def test_the_quota_of_a_token_against_what_it_needs(database, pool, videos, limit, expected):
    """By the account with the most videos; a paused one needs none."""
    await store(pool)
    count = "UPDATE refresher.accounts SET videos = $1 WHERE open_id = 'account-2'"
    await pool.execute(count, videos)
    worst, text = await outcome(database, "freshness.token_quota", rate_limit_per_token=limit)
    assert worst is expected
    assert ("account-2" in text) == (bool(limit) and videos > 100)
    assert ("asked for late" in text) == (videos == 16_500_000)
    await pool.execute("UPDATE refresher.accounts SET state = 'paused' WHERE videos <> 100")
    assert (await outcome(database, "freshness.token_quota"))[0] is OK


async def test_the_quota_of_the_app_against_what_it_needs(database, pool):
    """Against the limit that is set, and one that was found after 429s."""
    check = "freshness.app_quota"
    await store(pool)
    assert "no limit for the app" in (await outcome(database, check))[1]
    assert (await outcome(database, check, rate_limit_per_app=600))[0] is OK
    await pool.execute("UPDATE refresher.accounts SET videos = 10000000")
    assert (await outcome(database, check, rate_limit_per_app=600))[0] is PROBLEM
    await pool.execute("UPDATE refresher.app SET rate = 1200, rate_lowered_at = now()")
    worst, text = await outcome(database, check)
    assert (worst, "of the 1,200.0 that TikTok allows" in text) == (WARNING, True)


# --- Storage ---


@pytest.fixture(params=[None, 4], ids=["plain", "partitioned"])
async def stored(request, database):
    """The URL of a database, its videos perhaps partitioned."""
    if request.param:
        await partition_videos(database, request.param)
    return database


@pytest.mark.parametrize(
    "columns",
    [
        "(due_at)",
        "(open_id) INCLUDE (misses)",
        "(open_id) WHERE cover_expires_at IS NULL",
        "(lower(cover_image_url))",
    ],
)
async def test_indexes_that_end_hot_updates(stored, pool, columns):
    """Whatever way they name the column; told once, and none of our own."""
    check = "storage.hindering_indexes"
    assert (await outcome(stored, check))[0] is OK
    await pool.execute("CREATE INDEX of_others ON refresher.videos (video_id)")
    assert (await outcome(stored, check))[0] is OK
    await pool.execute(f"CREATE INDEX mine ON refresher.videos {columns}")
    worst, text = await outcome(stored, check)
    assert (worst, text[:27]) == (WARNING, "index refresher.mine names ")


async def test_an_index_that_only_sums_up_ranges_hinders_from_version_15(database, pool):
    """From 16 on, it does not."""
    await pool.execute("CREATE INDEX ranges ON refresher.videos USING brin (due_at)")
    hinders = await pool.fetchval("SELECT current_setting('server_version_num')::int < 160000")
    assert (await outcome(database, "storage.hindering_indexes"))[0] is (WARNING if hinders else OK)


async def test_invalid_indexes(database, pool):
    """What a CREATE INDEX CONCURRENTLY leaves that fails."""
    assert (await outcome(database, "storage.invalid_indexes"))[0] is OK
    await store(pool)
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute("CREATE UNIQUE INDEX CONCURRENTLY one ON refresher.accounts (state)")
    worst, text = await outcome(database, "storage.invalid_indexes")
    assert (worst, text[:33]) == (WARNING, "index refresher.one is invalid: i")


async def test_autovacuum_that_is_off(stored, pool):
    """For a table, or one of its partitions."""
    assert (await outcome(stored, "storage.autovacuum"))[0] is OK
    parts = await pool.fetchval("SELECT to_regclass('refresher.videos_1') IS NOT NULL")
    name = "videos_1" if parts else "videos"
    await pool.execute(f"ALTER TABLE refresher.{name} SET (autovacuum_enabled = off)")
    assert await outcome(stored, "storage.autovacuum") == (
        WARNING,
        "autovacuum is off for refresher.videos",
    )


OF_VIDEOS = (
    "SELECT oid::regclass::text FROM pg_class"
    " WHERE relname LIKE 'videos%' AND relkind = 'r' AND relnamespace = 'refresher'::regnamespace"
)


async def test_hot_updates_and_dead_rows(stored, pool):
    """As the server counts them."""
    await store(pool, videos=3000)
    for (table,) in await pool.fetch(OF_VIDEOS):
        # It would take the dead rows away.
        await pool.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    async with pool.acquire() as connection:
        for hot in (True, False):
            if not hot:
                await connection.execute("CREATE INDEX mine ON refresher.videos (misses)")
            await connection.execute("SELECT pg_stat_reset()")
            # The server takes off those that it clears meanwhile, which may be all of before.
            for _ in range(1 if hot else 3):
                await connection.execute("UPDATE refresher.videos SET misses = misses + 1")
            await connection.execute("SELECT pg_stat_force_next_flush()")
            await connection.execute("SELECT 1")
            found = await findings(stored)
            assert found["storage.hot_updates"][0].outcome is (OK if hot else WARNING)
            assert found["storage.dead_rows"][0].outcome is (OK if hot else WARNING)
    assert "of the updates of videos were HOT" in found["storage.hot_updates"][0].text


async def test_old_snapshots(database, pool, monkeypatch):
    """Whose they are, for how long, and how to end them."""
    assert (await outcome(database, "storage.snapshots"))[0] is OK
    monkeypatch.setattr(storage, "OLD_SECONDS", 0.0)
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        await connection.execute("SELECT 1")
        worst, text = await outcome(database, "storage.snapshots")
    assert worst is WARNING
    assert text.startswith("transaction of process ")
    assert "(tests, idle in transaction) keeps dead rows" in text


async def test_how_scattered_the_videos_of_accounts_are(stored, pool):
    """Scattered, in a database that does not fit into memory; and after a CLUSTER."""
    check = "storage.scatter"
    assert (await outcome(stored, check))[0] is SKIPPED
    await store(pool, accounts=60)
    for (table,) in await pool.fetch(OF_VIDEOS):
        await pool.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    count = "UPDATE pg_class SET reltuples = $1, relpages = $2 WHERE relname ~ '^videos'"
    await pool.execute(count, -1, 0)
    assert (await outcome(stored, check)) == (
        SKIPPED,
        "videos was not analyzed since its rows came: ANALYZE refresher.videos",
    )
    await pool.execute(count, 1, 1000)
    _, text = await outcome(stored, check)
    lie, least = re.findall(r"([\d,]+)(?: pages;| after a CLUSTER)", text)
    assert lie == least, "no CLUSTER makes it worse"
    await pool.execute("ANALYZE refresher.videos")
    worst, text = await outcome(stored, check)
    assert (worst, "which gains little" in text) == (OK, True)
    name = await pool.fetchval("SELECT current_database()")
    await pool.execute(f"ALTER DATABASE {name} SET effective_cache_size = '80kB'")
    assert (await outcome(stored, check))[0] is WARNING
    for part in await pool.fetch(
        "SELECT indexrelid::regclass AS index, indrelid::regclass AS name FROM pg_index"
        " JOIN pg_class ON pg_class.oid = indrelid WHERE relname LIKE 'videos%' AND relkind = 'r'"
    ):
        await pool.execute(f"CLUSTER {part['name']} USING {part['index'].split('.')[-1]}")
    await pool.execute("ANALYZE refresher.videos")
    assert (await outcome(stored, check))[0] is OK


# --- Webhooks ---


async def test_probes(database, pool):
    """Deleted videos are refused, too: only many refusals of a day are told."""
    check = "freshness.probes"
    assert (await outcome(database, check))[0] is SKIPPED

    async def probed(number, result, when="now()"):
        await pool.execute(
            "INSERT INTO refresher.probes (probed_at, host, open_id, video_id, left_seconds,"
            f" life_seconds, outcome) SELECT {when}, 'a.example', 'ana', i::text, 60, 3600, $2"
            " FROM generate_series(1, $1) AS i",
            number,
            result,
        )

    await probed(2, "unknown")
    assert await outcome(database, check) == (
        WARNING,
        "none of 2 covers could be fetched within a day",
    )
    await probed(30, "served")
    await probed(2, "refused")
    await probed(50, "refused", "now() - interval '25 hours'")
    assert await outcome(database, check) == (
        OK,
        "2 of 32 covers fetched within a day were refused",
    )
    await probed(1, "refused")
    assert (await outcome(database, check))[0] is OK  # a tenth may be deleted videos
    await probed(1, "refused")
    assert (await outcome(database, check))[0] is WARNING


async def test_webhooks(database, pool):
    """One that waits is no trouble; one that has waited for an hour is."""
    assert await outcome(database, "webhooks.delivered") == (OK, "no webhook waits")
    await pool.execute(
        "INSERT INTO refresher.outbox (open_id, place, type, data)"
        " VALUES ('ana', 1, 'account.parked', '{}')"
    )
    assert (await outcome(database, "webhooks.delivered"))[0] is OK
    await pool.execute("UPDATE refresher.outbox SET changed_at = now() - interval '61 minutes'")
    assert await outcome(database, "webhooks.delivered") == (
        WARNING,
        "1 webhook not delivered, the oldest for 1 h 1 min",
    )


# --- Attached tables ---


async def test_what_attached_tables_tell(database, pool):
    """What waits for longer than a minute is late; what was put off is not, before it is due again."""
    check = "attachments.applied"
    assert await outcome(database, check) == (OK, "no table is attached")
    await pool.execute(
        "INSERT INTO refresher.attachments (name, kind, mapping, tables, carries)"
        " VALUES ('clips', 'videos', '{}', '{}', true)"
    )
    assert await outcome(database, check) == (OK, "1 attached table, none waits for long")
    tell = (
        "INSERT INTO refresher.{} (attachment, open_ids, video_ids, told_at, not_before)"
        " VALUES ('clips', '{{ana}}', '{{1}}', now() - interval '1 hour', {})"
    )
    await pool.execute(tell.format("changed_rows", "now() + interval '1 hour'"))
    assert (await outcome(database, check))[0] is OK
    for table in ("changed_rows", "changed_covers"):
        await pool.execute(tell.format(table, "'-infinity'"))
        told, text = await outcome(database, check)
        assert told is WARNING
        assert text.startswith("what attachment clips tells has waited for 1 h")
        await pool.execute(f"DELETE FROM refresher.{table}")


# --- Replicas ---


async def test_whether_daemons_listen(database, pool, start):
    """A daemon does; a second one that only says that it runs does not."""
    check = "replicas.listening"
    assert (await outcome(database, check))[0] is SKIPPED
    daemon = await start()
    await daemon.until_event("notifications.received")
    await eventually(
        lambda: pool.fetchval("SELECT count(*) FROM refresher.replicas"), "a heartbeat"
    )
    assert await outcome(database, check) == (OK, "every replica hears of new videos at once")
    await pool.execute("INSERT INTO refresher.replicas (replica, version) VALUES ('deaf', '1')")
    told, text = await outcome(database, check)
    assert told is WARNING
    assert text.startswith("1 of 2 replicas do not hear of new videos")


async def test_replicas(database, pool):
    """None, one of this version, one that is silent and of another version; the long dead are forgotten."""
    version = doctor.version("cover-refresher")
    assert (await outcome(database, "replicas.alive")) == (PROBLEM, "no replica runs")
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, lease_owner, lease_expires_at)"
        " VALUES ('ana', 'old', now() + interval '1 hour')"
    )
    assert (await outcome(database, "replicas.alive"))[0] is OK
    say = (
        "INSERT INTO refresher.replicas (replica, version, seen_at)"
        " VALUES ($1, $2, now() - $3::interval)"
    )
    await pool.execute(say, "a", version, timedelta(0))
    found = await findings(database)
    assert [found[f"replicas.{name}"][0].outcome for name in ("alive", "versions")] == [OK, OK]
    await pool.execute(say, "b", "0.0.1", timedelta(seconds=40))
    found = await findings(database)
    (silent,) = found["replicas.alive"]
    assert "replica b has said nothing for 4" in silent.text
    assert "kill it with SIGKILL if it does not stop, and start it again" in silent.remedy
    assert found["replicas.versions"][0].text == f"replica b runs version 0.0.1, this is {version}"
    await pool.execute("DELETE FROM refresher.accounts")
    assert (await outcome(database, "replicas.alive"))[0] is WARNING
    await pool.execute("UPDATE refresher.replicas SET seen_at = now() - interval '2 minutes'")
    *silent, last = (await findings(database))["replicas.alive"]
    assert [finding.outcome for finding in silent] == [WARNING, WARNING]
    assert (last.outcome, last.text) == (PROBLEM, "no replica runs")
    await pool.execute("UPDATE refresher.replicas SET seen_at = now() - interval '2 days'")
    assert await outcome(database, "replicas.alive") == (PROBLEM, "no replica runs")
