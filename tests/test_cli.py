"""The commands as an operator types them: output, exit codes, one clear line for what is wrong."""

import json
import re
from importlib.metadata import version

import pytest
from cryptography.fernet import Fernet

from refresher.domain.credentials import AppCredentials
from refresher.postgres.sealing import SEALED, Sealer
from tests.test_refused import on_update


@pytest.fixture
def csv_file(tmp_path):
    def write(text):
        path = tmp_path / "rows.csv"
        path.write_text(text)
        return str(path)

    return write


async def count(pool, table):
    return await pool.fetchval(f"SELECT count(*) FROM refresher.{table}")


async def test_the_version_is_said(refresher):
    """One line: the program and its version."""
    assert await refresher("--version") == (0, f"refresher {version('cover-refresher')}\n", "")


async def test_a_shell_completes_commands(refresher):
    """With the script that `--show-completion` prints: commands as they are typed."""
    _, script, _ = await refresher("--show-completion", "bash", shell="/bin/bash")
    assert "_REFRESHER_COMPLETE=complete_bash" in script


async def test_an_old_version_leaves_a_newer_schema_alone(refresher, pool):
    """It says that the program is to be upgraded, not the database."""
    await pool.execute("UPDATE refresher.alembic_version SET version_num = '9999'")
    code, out, err = await refresher("migrate")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "the database is of a newer version (revision 9999" in err
    assert "upgrade refresher" in err


async def test_migrate_again_is_fine(refresher):
    """Idempotent, and says so."""
    assert await refresher("migrate") == (0, "nothing to migrate\n", "")


async def test_accounts_are_imported_listed_paused_and_resumed(refresher, csv_file, pool):
    """The life of an account at the command line; no command shows a token."""
    file = csv_file(
        'open_id,access_token,scope\nana,act.one,"user.info.basic,video.list"\nben,act.two,\n'
    )
    assert await refresher("accounts", "import", file) == (
        0,
        "2 accounts added or re-authorized\n",
        "",
    )
    assert (await refresher("accounts", "pause", "ana"))[0] == 0
    code, listed, _ = await refresher("accounts", "list")
    assert code == 0
    assert re.search(r"^ana +paused +paused by the operator", listed, re.MULTILINE)
    assert re.search(r"^ben +active", listed, re.MULTILINE)
    assert (await refresher("accounts", "resume", "ana"))[0] == 0
    assert (
        await pool.fetchval("SELECT state FROM refresher.accounts WHERE open_id = 'ana'")
        == "active"
    )


async def test_importing_new_tokens_revives_an_account(refresher, csv_file, pool):
    """An import of known accounts re-authorizes them; what the file does not bring stays."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, refresh_token, state)"
        " VALUES ('ana', 'act.old', 'rft.kept', 'needs_reauthorization')"
    )
    await refresher("accounts", "import", csv_file("open_id,access_token\nana,act.new\n"))
    row = await pool.fetchrow("SELECT state, access_token, refresh_token FROM refresher.accounts")
    assert tuple(row) == ("active", "act.new", "rft.kept")


KEY, OTHER_KEY = (Fernet.generate_key().decode() for _ in range(2))


async def test_an_import_leaves_newer_tokens_alone(refresher, csv_file, pool):
    """A file of before a refresh holds a used-up refresh token: it is said, not stored."""
    columns = "open_id,access_token,access_token_expires_at,refresh_token\n"
    old = csv_file(columns + "ana,act.old,2030-01-01T00:00:00Z,rft.old\n")
    await refresher("accounts", "import", old)
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = 'act.new', refresh_token = 'rft.new',"
        " access_token_expires_at = '2030-01-02'"
    )
    code, out, _ = await refresher("accounts", "import", old)
    assert (code, out) == (
        0,
        "0 accounts added or re-authorized, 1 left alone: the stored tokens are newer\n",
    )
    assert await pool.fetchval("SELECT refresh_token FROM refresher.accounts") == "rft.new"


async def test_tokens_are_imported_sealed(refresher, csv_file, pool):
    """With a key they are never in the table as they are, not even in the staging one."""
    file = csv_file("open_id,access_token,refresh_token\nana,act.one,rft.one\nben,act.two,\n")
    seen = "CREATE TABLE seen AS SELECT access_token AS token FROM refresher.accounts WHERE false"
    await pool.execute(seen)
    await pool.execute(
        "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO seen VALUES (NEW.access_token), (NEW.refresh_token);"
        # What the transaction holds just now: the staging table, too.
        " INSERT INTO seen SELECT access_token FROM staged_accounts;"
        " INSERT INTO seen SELECT refresh_token FROM staged_accounts; RETURN NEW; END $$"
    )
    await pool.execute(
        "CREATE TRIGGER watched BEFORE INSERT OR UPDATE ON refresher.accounts"
        " FOR EACH ROW EXECUTE FUNCTION watch()"
    )
    assert (await refresher("accounts", "import", file, token_keys=KEY))[0] == 0
    tokens = [row["token"] for row in await pool.fetch("SELECT token FROM seen")]
    sealer = Sealer([KEY])
    assert {sealer.unseal(token) for token in tokens} == {"act.one", "act.two", "rft.one", None}
    assert all(token is None or SEALED.fullmatch(token) for token in tokens)


@pytest.mark.parametrize("keys", [KEY, ""], ids=["sealed", "plain"])
async def test_importing_the_same_tokens_again_changes_nothing(refresher, csv_file, pool, keys):
    """It is no new authorization: a parked account stays parked, what is known of its tokens stays."""
    file = csv_file(
        "open_id,access_token,access_token_expires_at,refresh_token,refresh_token_expires_at\n"
        "ana,act.one,2030-01-01T00:00:00Z,rft.one,2031-01-01T00:00:00Z\n"
    )
    await refresher("accounts", "import", file, token_keys=keys)
    await pool.execute("UPDATE refresher.accounts SET state = 'needs_scope'")
    before = await pool.fetchrow("SELECT * FROM refresher.accounts")
    assert (await refresher("accounts", "import", file, token_keys=keys))[0] == 0
    assert await pool.fetchrow("SELECT * FROM refresher.accounts") == before
    assert before["access_token_expires_at"].year == 2030


async def test_an_import_mends_an_account_whose_key_is_lost(refresher, csv_file, pool):
    """New tokens need not be compared with what nobody can read."""
    sealed = Sealer([OTHER_KEY]).seal("act.lost")
    await pool.execute("INSERT INTO refresher.accounts VALUES ('ana', $1)", sealed)
    file = csv_file("open_id,access_token\nana,act.new\n")
    assert (await refresher("accounts", "import", file, token_keys=KEY))[0] == 0
    stored = await pool.fetchval("SELECT access_token FROM refresher.accounts")
    assert Sealer([KEY]).unseal(stored) == "act.new"


async def test_rotating_seals_with_the_first_key(refresher, pool):
    """It says how many accounts changed, parked ones too; plain text is sealed along the way."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, refresh_token, state) VALUES"
        " ('ana', $1, 'rft.x', 'active'), ('ben', 'act.x', NULL, 'paused'),"
        " ('cid', NULL, NULL, 'active')",
        Sealer([OTHER_KEY]).seal("act.x"),
    )
    for changed in (2, 0):
        assert await refresher("tokens", "rotate", token_keys=f"{KEY},{OTHER_KEY}") == (
            0,
            f"{changed} account{'s' * (changed != 1)} encrypted with the first key\n",
            "",
        )
    rows = await pool.fetch("SELECT access_token FROM refresher.accounts ORDER BY open_id")
    assert [Sealer([KEY]).unseal(row["access_token"]) for row in rows] == ["act.x", "act.x", None]


async def test_an_account_that_no_key_fits_is_named(refresher, pool):
    """Exit 2 with what to do; the account keeps what it has."""
    lost = Sealer([OTHER_KEY]).seal("act.x")
    await pool.execute("INSERT INTO refresher.accounts VALUES ('ana', $1), ('ben', 'act.y')", lost)
    code, out, err = await refresher("tokens", "rotate", token_keys=KEY)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("refresher: account ana: sealed with a key that is not among")
    assert "add it, or store new tokens for the account, and rotate again" in err
    stored = "SELECT access_token FROM refresher.accounts WHERE open_id = $1"
    assert await pool.fetchval(stored, "ana") == lost
    assert Sealer([KEY]).unseal(await pool.fetchval(stored, "ben")) == "act.y"


async def test_videos_are_imported_with_what_is_known_of_them(refresher, csv_file, pool):
    """A cover that lives is due before it dies; without one, at once; known videos stay."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    now = await pool.fetchval("SELECT extract(epoch FROM now())::bigint")
    url = f"https://c/x?x-signature=e%2Ff&x-expires={now + 86400}"
    file = csv_file(
        "open_id,video_id,cover_image_url\n"
        f"ana,1,\nana,2,{url}\nana,3,https://c/x?x-expires={now - 5}\nana,4,https://c/unsigned\n"
    )
    assert await refresher("videos", "import", file) == (
        0,
        "4 videos added, 0 known already\n",
        "",
    )
    rows = {
        row["video_id"]: row
        for row in await pool.fetch(
            "SELECT *, due_at <= now() AS due, due_at < cover_expires_at AS early FROM refresher.videos"
        )
    }
    assert rows["2"]["cover_image_url"] == url
    assert (rows["2"]["due"], rows["2"]["early"]) == (False, True)
    assert [rows[video]["due"] for video in "134"] == [True] * 3
    assert [rows[video]["cover_expires_at"] is None for video in "134"] == [True, False, True]
    again = await refresher("videos", "import", file)
    assert again == (0, "0 videos added, 4 known already\n", "")


@pytest.mark.parametrize(
    ("kind", "text", "complaint"),
    [
        (
            "videos",
            "video_id\n1\n",
            ":1: expected the columns open_id,video_id (and perhaps cover_image_url)",
        ),
        (
            "videos",
            "open_id,video_id\nana,1\nana,123456789012345678901\n",
            ":3: video_id: expected",
        ),
        ("videos", "open_id,video_id\nana,\n", ":2: video_id: expected 1 to 20 digits"),
        (
            "videos",
            "open_id,video_id\nana,1\nana,2\nana,1\n",
            ":4: open_id,video_id: expected each once",
        ),
        (
            "videos",
            "open_id,video_id\nana,1\nbob,2\n",
            ":3: open_id: expected a known account, not 'bob'",
        ),
        ("videos", "open_id,video_id\nana,1,2\n", ":2: expected 2 columns, not 3"),
        ("accounts", "open_id,token\nana,act.x\n", ":1: expected the columns open_id,access_token"),
        (
            "accounts",
            "open_id,access_token\nbob,act.x\nbob,act.y\n",
            ":3: open_id: expected each once",
        ),
        ("accounts", "open_id,access_token\nbob,\n", ":2: expected a token in column access_token"),
    ],
    ids=[
        "header",
        "21 digits",
        "empty",
        "duplicate",
        "unknown",
        "columns",
        "header",
        "twice",
        "token",
    ],
)
async def test_a_bad_row_stops_an_import_with_nothing_written(
    refresher, csv_file, pool, kind, text, complaint
):
    """One line on stderr with file, line, value and what was expected; exit 2."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    file = csv_file(text)
    code, out, err = await refresher(kind, "import", file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{file}{complaint}" in err
    assert (await count(pool, "accounts"), await count(pool, "videos")) == (1, 0)


@pytest.mark.parametrize(
    ("command", "settings", "complaint"),
    [
        (
            "run",
            {"url": "mysql://u:pass-word-of-the-tests@h/d"},
            "REFRESHER_DATABASE_URL: expected",
        ),
        ("run", {"url": ""}, "REFRESHER_DATABASE_URL is not set"),
        ("run", {"concurrency": "many"}, "REFRESHER_CONCURRENCY"),
        ("run", {"lead_seconds": "-1"}, "REFRESHER_LEAD_SECONDS"),
        ("run", {"http_listen": "here"}, "REFRESHER_HTTP_LISTEN: expected host:port, not 'here'"),
        ("run", {"http_listen": "203.0.113.1:80"}, "203.0.113.1"),
        ("status", {"url": "postgresql://u:pass-word-of-the-tests@127.0.0.1:9/d"}, "127.0.0.1"),
        ("accounts pause bob", {}, "open_id: expected a known account, not 'bob'; add it"),
        ("accounts import nowhere.csv", {}, "nowhere.csv: No such file"),
        ("videos import nowhere.csv", {}, "nowhere.csv: No such file"),
        ("tokens rotate", {}, "REFRESHER_TOKEN_KEYS is not set: expected the key to encrypt with"),
        ("tokens rotate", {"token_keys": "x"}, "REFRESHER_TOKEN_KEYS: expected Fernet keys"),
        ("run", {"tiktok_client_key": "x"}, "_SECRET: expected both or neither of the two"),
        ("", {}, "Missing command; see refresher --help"),
        ("accounts", {}, "Missing command; see refresher accounts --help"),
        ("frolic", {}, "No such command 'frolic'; see refresher --help"),
        ("statuss", {}, "No such command 'statuss'. Did you mean 'status'? See refresher --help"),
        ("accounts puse x", {}, "Did you mean 'pause'? See refresher accounts --help"),
        ("accounts pause", {}, "argument 'OPEN_ID'; see refresher accounts pause --help"),
        ("status --colour", {}, "No such option: --colour; see refresher status --help"),
        ("status --jsn", {}, "option: --jsn. Did you mean --json? See refresher status --help"),
        (
            "emulator --cover-ttl soon",
            {},
            "--cover-ttl: expected hourly or seconds, 1 to 34560000, not 'soon'",
        ),
        ("emulator --missing-share 2", {}, "--missing-share: expected 1 or less, not '2'"),
        ("emulator --latency nan", {}, "--latency: expected 0 or more, not 'nan'"),
        ("emulator --port http", {}, "--port: expected a whole number, not 'http'"),
        ("emulator --host a..b", {}, "--host: expected a name or an address, not 'a..b'"),
        ("emulator --host 203.0.113.1", {}, "--host, --port: 203.0.113.1:8090: "),
        ("emulator --old-access-tokens no", {}, "--old-access-tokens: expected live or die, not"),
        (
            "emulator --failed-share 0.6 --throttled-share 0.6",
            {},
            "-share: expected the faults to share at most 1, not 1.2",
        ),
        ("demo --seconds soon", {}, "--seconds: expected a number, not 'soon'"),
        ("migrate --video-partitions 1", {}, "--video-partitions: expected 2 or more, not '1'"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(refresher, command, settings, complaint):
    """Exit 2, one line on stderr that names the value, no traceback, no password."""
    code, out, err = await refresher(*command.split(), **settings)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err


@pytest.mark.parametrize("command", ["run", "once", "status", "accounts list", "tokens rotate"])
async def test_a_schema_not_migrated_is_said_in_one_line(refresher, empty_database, command):
    """And with the command that helps."""
    code, _, err = await refresher(*command.split(), url=empty_database, token_keys=KEY)
    assert (code, err.count("\n")) == (2, 1)
    assert "run refresher migrate" in err


async def test_a_wrong_password_or_database_ends_the_daemon(refresher, database):
    """Waiting would not mend it: one line, exit 2."""
    code, _, err = await refresher("run", url=re.sub(r"/test_\w+", "/nowhere", database))
    assert (code, err.count("\n")) == (2, 1)
    assert 'database "nowhere" does not exist' in err


@pytest.mark.parametrize("command", ["status", "migrate", "run"])
async def test_a_connection_setting_that_makes_no_sense_is_said_in_one_line(
    refresher, database, command
):
    """What the driver or the server refuses is the operator's mistake, too."""
    joined = "&" if "?" in database else "?"
    for setting in ("sslmode=bogus", "foo=bar"):
        code, _, err = await refresher(command, url=f"{database}{joined}{setting}")
        assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", ["status", "migrate", "run"])
@pytest.mark.parametrize("hosts", ["a:1,b:x", "a..b"])
async def test_hosts_that_cannot_be_are_said_in_one_line(refresher, command, hosts):
    """What only the driver finds, when it looks for them; the URL is not shown."""
    code, _, err = await refresher(command, url=f"postgresql://u:pass-word-of-the-tests@{hosts}/d")
    assert (code, err.count("\n")) == (2, 1)
    assert "REFRESHER_DATABASE_URL: expected a URL as postgresql://" in err


async def test_what_an_application_refuses_is_said_as_that(refresher, csv_file, pool):
    """PostgreSQL quotes the row it refuses; exit 2, one line, no token."""
    await pool.execute(
        "ALTER TABLE refresher.accounts ADD CONSTRAINT plan CHECK (open_id <> 'ana')"
    )
    file = csv_file("open_id,access_token\nana,act.one\n")
    code, _, err = await refresher("accounts", "import", file)
    assert (code, err.count("\n")) == (2, 1)
    assert 'violates check constraint "plan" (a trigger or constraint of yours' in err
    await pool.execute("ALTER TABLE refresher.accounts DROP CONSTRAINT plan")
    await refresher("accounts", "import", file)
    await on_update(pool, "RAISE 'no plan for %', OLD.open_id;")
    code, _, err = await refresher("accounts", "pause", "ana")
    assert (code, err.count("\n")) == (2, 1)
    assert "database: no plan for ana (a trigger" in err


async def test_an_unexpected_error_shows_no_row(refresher, csv_file, pool):
    """PostgreSQL quotes what it cannot read; exit 1, one line, no token."""
    await on_update(pool, "PERFORM NEW.access_token::integer;")
    file = csv_file("open_id,access_token\nana,act.one\n")
    assert (await refresher("accounts", "import", file))[0] == 0
    code, _, err = await refresher("accounts", "pause", "ana")
    assert (code, err.count("\n")) == (1, 1)
    assert "unexpected InvalidTextRepresentationError" in err
    assert "act.one" not in err


async def test_once_answers_everything_due(refresher, serve):
    """Exit 0 when every due video was answered; a second run finds nothing to do."""
    world = await serve()
    await world.add_account("ana", videos=50)
    await world.add_videos("ana", 1, missing=True)
    assert (await refresher("once", tiktok_base_url=world.base_url))[0] == 0
    assert await world.valid() == 50
    sent = len(world.emulator.record)
    assert (await refresher("once", tiktok_base_url=world.base_url))[0] == 0
    assert len(world.emulator.record) == sent == 3


async def test_once_says_what_could_not_be_answered(refresher, serve):
    """Exit 1 with the number of videos, after several tries, the others being fresh."""
    world = await serve()
    await world.add_account("ana", videos=5)
    await world.add_account("ben", videos=5)
    world.emulator.revoke_access_token("ana")
    code, _, err = await refresher("once", tiktok_base_url=world.base_url)
    assert (code, await world.valid()) == (1, 5)
    assert "5 due videos could not be answered" in err


async def test_status_tells_freshness(refresher, serve):
    """For people and, with --json, for programs."""
    world = await serve()
    await world.add_account("ana", videos=50)
    await refresher("once", tiktok_base_url=world.base_url)
    code, out, _ = await refresher("status", "--json")
    facts = json.loads(out)
    assert (code, facts["videos"], facts["valid"], facts["expired"]) == (0, 50, 50, 0)
    assert (facts["accounts"]["active"], facts["quota"]["requests"], facts["replicas"]) == (
        1,
        3,
        {},
    )
    code, out, _ = await refresher("status")
    assert code == 0
    assert re.search(r"freshness +100.00%", out)


async def test_status_tells_limits_refusals_and_silence(refresher, pool):
    """The limits in force, refused app credentials and replicas that died or hang."""
    settings = {"tiktok_client_key": "key", "tiktok_client_secret": "secret"}
    settings["rate_limit_per_app"] = 1200
    told = json.loads((await refresher("status", "--json", **settings))[1])
    assert told["quota"]["limit_per_app_and_minute"] == 1200
    assert told["quota"]["found_per_app_and_minute"] is None
    assert (told["app_credentials_refused_at"], told["silent_replicas"]) == (None, {})
    await pool.execute(
        "UPDATE refresher.app SET rate = 90, rate_lowered_at = now(), client_refused_at = now(),"
        " refused_client = $1",
        AppCredentials("key", "secret").fingerprint,
    )
    await pool.execute(
        "INSERT INTO refresher.replicas (replica, version, seen_at)"
        " VALUES ('a', '1', now()), ('b', '1', now() - interval '1 minute')"
    )
    told = json.loads((await refresher("status", "--json", **settings))[1])
    assert 89 < told["quota"]["found_per_app_and_minute"] < 95
    assert (bool(told["app_credentials_refused_at"]), [*told["silent_replicas"]]) == (True, ["b"])
    _, out, _ = await refresher("status", **settings)
    for line in (
        r"limit per account +600 requests a minute",
        r"limit of the app +1,200 requests a minute",
        r"found after 429s +about 9\d requests a minute for the app",
        r"app credentials +refused by TikTok at 20\S+ [\d:]+\+00:00 \(.+\)",
        r"silent replica +b, last seen at 20\S+ [\d:]+\+00:00 \(1 min.* ago\)",
    ):
        assert re.search(rf"^{line}$", out, re.MULTILINE)
    assert "app credentials" not in (await refresher("status"))[1], "other ones are in use"


async def test_status_tells_partitions(refresher):
    """How many there are of the videos; nothing where they are one table."""
    for told in ("status", "status --json"):
        assert "partitions" not in (await refresher(*told.split()))[1]
    await refresher("migrate", "--video-partitions", "2")
    _, out, _ = await refresher("status", "--json")
    assert json.loads(out)["video_partitions"] == 2
    _, out, _ = await refresher("status")
    assert re.search(r"^video partitions +2 *$", out, re.MULTILINE)


async def test_the_demo_stops_by_itself_with_a_table(refresher):
    """Nothing to configure: covers of 19 accounts live, one account has a dead token."""
    code, out, err = await refresher("demo", "--seconds", "8")
    assert (code, err) == (0, "")
    assert "account.parked" in out
    row = re.findall(r"[\d.,]+", out.splitlines()[-2])
    videos, valid, expired, missing, requests, fill, throttled = row
    assert (videos, expired, missing, throttled) == ("1,200", "0", "19", "0")
    assert 57 < int(requests) <= 60, "three for each account, some of them for the dead token"
    assert 1100 < int(valid.replace(",", "")) < 1140
    assert float(fill) == 100.0
