"""`accounts remove`: the consent is revoked, then nothing of the account is left."""

import asyncio
import os
import pty
import signal
import sys

import asyncpg
import pytest
from cryptography.fernet import Fernet

from refresher.postgres.attached import apply_told, read_attachments, walk_step
from refresher.postgres.tokens import fingerprint
from tests.conftest import environment, eventually, waits_for_a_lock
from tests.terminal import read_all
from tests.test_attach_tokens import APPLICATION, ATTACH, pair, sign_in
from tests.test_tokens import CLIENT, SETTINGS, authorize, in_seconds, row_of, standing, token_calls

#: Every table of the schema.
TABLES = """
SELECT c.relname FROM pg_class AS c
WHERE c.relnamespace = 'refresher'::regnamespace AND c.relkind = 'r'
"""


async def tables_that_name(pool, text):
    """Those of schema refresher of which a row has the text in any column."""
    tables = [row["relname"] for row in await pool.fetch(TABLES)]
    counts = {
        table: await pool.fetchval(
            f"SELECT count(*) FROM refresher.{table} AS t WHERE strpos(to_jsonb(t)::text, $1) > 0",
            text,
        )
        for table in tables
    }
    return {table: count for table, count in counts.items() if count}


def revocations(world):
    return [(arrival.open_id, arrival.error_code) for arrival in world.emulator.revoke_record]


@pytest.fixture
async def world(serve):
    return await serve()


@pytest.fixture
def remove(refresher, world):
    """Removes an account, without being asked. (exit code, stdout, stderr)."""

    async def run(open_id, *options, **settings):
        settings = {**CLIENT, "tiktok_base_url": world.base_url, **settings}
        return await refresher("accounts", "remove", open_id, "--yes", *options, **settings)

    return run


# --- What is removed ---


async def test_a_removed_account_leaves_nothing_behind(world, remove, start, pool):
    """Beside a daemon that works it: the other account goes on, and no error is logged."""
    await authorize(world, "-000ana", 30, lives=1)
    await authorize(world, "ben", 1)
    daemon = await start(world, **SETTINGS)
    await daemon.until_event("token.refreshed")
    await world.until_valid(31)
    code, out, err = await remove("-000ana")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == ("-000ana removed: the consent was revoked, 30 videos deleted")
    assert "refresher.videos (30)" in out
    assert revocations(world) == [("-000ana", "ok")]
    assert set(await tables_that_name(pool, "000ana")) <= {"audit"}
    await world.add_videos("ben", 1)
    await world.until_valid(2)
    assert await daemon.stopped() == 0
    assert {line["level"] for line in daemon.lines()} <= {"info", "warning"}


async def test_many_videos_are_deleted_in_steps(world, remove, pool):
    """Each is a transaction of its own."""
    await authorize(world, "ana", 2_500)
    await pool.execute(
        """
        CREATE TABLE steps (transaction bigint, videos bigint);
        CREATE FUNCTION step() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO steps SELECT txid_current(), count(*) FROM old_rows;
            RETURN NULL;
        END
        $$;
        CREATE TRIGGER step AFTER DELETE ON refresher.videos
        REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION step();
        """
    )
    code, out, _ = await remove("ana")
    assert (code, out.splitlines()[-1].split(", ")[-1]) == (0, "2,500 videos deleted")
    steps = await pool.fetch(
        "SELECT sum(videos)::int FROM steps WHERE videos > 0 GROUP BY transaction ORDER BY 1"
    )
    assert [step[0] for step in steps] == [500, 1000, 1000]


async def test_a_chunk_in_flight_writes_nothing(world, remove, start, pool):
    """Its answer comes after the account has gone; the daemon goes on with the next account."""
    world.emulator.options = type(world.emulator.options)(latency_seconds=2)
    await authorize(world, "ana", 5)
    daemon = await start(world, **SETTINGS)

    async def asked():
        return len(world.emulator.record)

    await eventually(asked, "a query")
    world.emulator.options = type(world.emulator.options)()
    code, _, err = await remove("ana")
    assert (code, err) == (0, "")
    assert await row_of(pool, "ana") is None
    await authorize(world, "ben", 1)
    await world.until_valid(1)
    assert await daemon.stopped() == 0
    assert {line["level"] for line in daemon.lines()} <= {"info", "warning"}


async def test_what_is_left_of_an_account_is_forgotten(world, remove, pool):
    """After an account was deleted in another way. What the queues tell of others stays."""
    await pool.execute(
        """
        INSERT INTO refresher.used_tokens VALUES ('ana', '{}'), ('ben', '{}');
        INSERT INTO refresher.attached_tokens VALUES ('ana', 'gone', '{}'), ('ben', 'gone', '{}');
        INSERT INTO refresher.changed_rows (attachment, accounts, open_ids, video_ids)
        VALUES ('t', NULL, '{ana,ana}', '{1,2}'), ('t', NULL, '{ben,ana,ben}', '{1,2,3}'),
               ('t', NULL, '{ana,ben}', NULL), ('t', NULL, '{ana}', NULL), ('t', NULL, '{}', NULL),
               ('t', '{ana}', NULL, '{9}');
        INSERT INTO refresher.changed_covers (attachment, open_ids, video_ids)
        VALUES ('t', '{ana}', '{1}'), ('t', '{ana,ben,ben}', '{1,2,3}');
        """
    )
    code, out, err = await remove("ana")
    assert (code, err) == (0, "")
    assert "state    not stored any more; this is left of it" in out
    assert out.splitlines()[-1] == "ana removed: 0 videos deleted"
    assert revocations(world) == []
    told = "SELECT accounts, open_ids, video_ids FROM refresher.changed_rows ORDER BY id"
    assert [tuple(row) for row in await pool.fetch(told)] == [
        (None, ["ben", "ben"], ["1", "3"]),
        (None, ["ben"], None),
        (None, [], None),
        (["ana"], None, ["9"]),  # the application's own key, which only looks like it
    ]
    covers = "SELECT open_ids, video_ids FROM refresher.changed_covers"
    assert [tuple(row) for row in await pool.fetch(covers)] == [(["ben", "ben"], ["2", "3"])]
    assert await tables_that_name(pool, '"ben"') == {
        "used_tokens": 1, "attached_tokens": 1, "changed_rows": 2, "changed_covers": 1,
    }  # fmt: skip
    code, out, err = await remove("ana")
    assert (code, out) == (2, "")
    assert err.startswith("refresher: open_id: expected a known account, not 'ana'; ")


async def test_an_account_of_an_attached_table_does_not_come_back(remove, pool, refresher):
    """Its fingerprints stay while the table has it. Without its row there, they go, too."""
    await pool.execute(APPLICATION)
    await sign_in(pool, "ann", *pair("ann"))
    assert (await refresher(*ATTACH))[0] == 0
    code, out, err = await remove("ann", "--keep-consent")
    assert code == 1
    assert "still has fingerprints of its tokens in public.Account: without them" in err
    assert "its tokens in public.Account: new tokens there add the account again" in out
    assert "ann removed: the consent stays, 0 videos deleted" in out
    (attachment,) = await read_attachments(pool)
    for step in (walk_step, apply_told):
        await step(pool, attachment, lambda *said: pytest.fail(str(said)))
    assert await of_ann(pool) == {"attached_tokens": 1}
    assert await remove("ann") == (1, "", err)
    await pool.execute('DELETE FROM "Account"')
    code, out, err = await remove("ann")
    assert (code, err) == (0, "")
    assert await of_ann(pool) == {}


async def of_ann(pool):
    """But for where the walk stands."""
    await pool.execute("UPDATE refresher.attachments SET walked_to = ''")
    return await tables_that_name(pool, "ann")


async def test_a_table_that_cannot_be_read_counts_as_one_that_has_it(remove, pool, refresher):
    """To be sure that no old row brings the account back."""
    await pool.execute(APPLICATION)
    await sign_in(pool, "ann", *pair("ann"))
    assert (await refresher(*ATTACH))[0] == 0
    await pool.execute('ALTER TABLE "Account" RENAME TO "Elsewhere"')
    code, _, err = await remove("ann", "--keep-consent")
    assert code == 1
    assert "perhaps tokens in public.Account, which cannot be read (there is no such table)" in err
    assert await of_ann(pool) == {"attached_tokens": 1}


# --- The consent ---


async def test_a_token_request_under_way_is_waited_for(world, remove, start, pool):
    """Its new pair is stored and revoked: no refresh token is used twice, none is lost."""
    world.emulator.options = type(world.emulator.options)(
        latency_seconds=8, old_access_tokens="die"
    )
    await authorize(world, "ana", 3, lives=2)
    daemon = await start(world, **SETTINGS)

    async def renewing():
        return (await row_of(pool, "ana"))["token_request_until"]

    await eventually(renewing, "a token request")
    code, out, err = await remove("ana")
    assert code == 0
    assert err.startswith("refresher: a daemon is renewing its tokens: waiting, ")
    assert out.endswith("ana removed: the consent was revoked, 3 videos deleted\n")
    assert token_calls(world) == {"ana": 1}
    assert revocations(world) == [("ana", "ok")]
    await daemon.until_event("token.refreshed")
    assert daemon.events("token.refreshed")[0]["stored"] is True
    assert await daemon.stopped() == 0


async def test_a_dead_access_token_is_renewed_to_revoke(world, remove, pool):
    """Whether the row says that it is dead, or only TikTok does."""
    for name, told in (("ana", True), ("ben", False)):
        await authorize(world, name, lives=-1, told=told)
        code, out, err = await remove(name)
        assert (code, err) == (0, "")
        assert "the consent was revoked" in out
    assert token_calls(world) == {"ana": 1, "ben": 1}
    assert revocations(world)[-3:] == [("ana", "ok"), ("ben", "invalid_grant"), ("ben", "ok")]


async def test_a_consent_that_is_over_needs_no_revoking(world, remove, pool):
    """TikTok refuses both tokens, or the row says when it ended."""
    await authorize(world, "ana", lives=600)
    world.emulator.end_consent("ana")
    await authorize(world, "ben", lives=-1, consent=-1)
    for name in ("ana", "ben"):
        code, out, err = await remove(name)
        assert (code, err) == (0, "")
        assert f"{name} removed: the consent had ended already, 1 video deleted" in out
    assert token_calls(world) == {"ana": 1}


LOST = (
    "access_token = 'act.x', refresh_token = 'rft.x';"
    " UPDATE refresher.accounts SET token_request_until = '-infinity'"
)
UNREVOCABLE = {
    "no refresh token": (
        "refresh_token = NULL, access_token_expires_at = now()", {},
        "its access token is dead, and there is no refresh token that we may renew it with",
    ),
    "not ours to renew": (
        "access_token_expires_at = now()", {"token_management": "external"},
        "its access token is dead, and there is no refresh token that we may renew it with",
    ),
    "no token at all": (
        "access_token = NULL, refresh_token = ''", {},
        "its access token is dead, and its refresh token is no token",
    ),
    "a pair that was lost": (
        LOST, {},
        "its tokens are dead: a pair was lost in a renewal that was interrupted",
    ),
    "other credentials": (
        "scope = scope", {"tiktok_client_key": "another"},
        "TikTok refuses the app credentials: invalid_client",
    ),
    "another key": (
        "access_token = '{sealed}'", {},
        "its tokens cannot be read: sealed with a key that is not among REFRESHER_TOKEN_KEYS",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "settings", "told"), UNREVOCABLE.values(), ids=UNREVOCABLE)
async def test_what_cannot_be_revoked_is_said(world, remove, pool, change, settings, told):
    """Nothing is removed then, and the account is as it was; --keep-consent removes it."""
    world.emulator.options = type(world.emulator.options)(client_key=CLIENT["tiktok_client_key"])
    await authorize(world, "ana", lives=600)
    sealed = Fernet(Fernet.generate_key()).encrypt(b"act.ana").decode()
    await pool.execute(f"UPDATE refresher.accounts SET {change.format(sealed=sealed)}")
    before = await row_of(pool, "ana")
    code, _, err = await remove("ana", **settings)
    assert code == 2
    assert err.startswith(f"refresher: the consent was not revoked: {told}")
    assert err.endswith("; --keep-consent deletes the account without revoking\n")
    assert err.count("\n") == 1
    await is_as_before(pool, before)
    code, out, _ = await remove("ana", "--keep-consent", **settings)
    assert (code, out.splitlines()[-1]) == (0, "ana removed: the consent stays, 1 video deleted")
    assert not [code for _, code in revocations(world) if code == "ok"]


async def is_as_before(pool, before):
    """State, since when, and free to be claimed."""
    after = await row_of(pool, "ana")
    for column in ("state", "state_reason", "state_since", "lease_owner", "lease_expires_at"):
        assert after[column] == before[column], column
    assert after["wake_at"] <= max(before["wake_at"], in_seconds(0))


async def test_without_app_credentials_nothing_is_begun(world, refresher, pool):
    """They are named."""
    await authorize(world, "ana")
    code, out, err = await refresher("accounts", "remove", "ana", "--yes")
    assert (code, out) == (2, "")
    assert err == (
        "refresher: REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET are not set:"
        " they are needed to revoke the consent; --keep-consent deletes the account without"
        " revoking\n"
    )
    assert await standing(pool, "ana") == ("active", None)


@pytest.mark.parametrize("state", ["active", "needs_scope", "paused"])
async def test_an_account_stays_as_it_was_when_tiktok_is_away(world, remove, pool, state):
    """Nothing is removed; run again, it is."""
    await authorize(world, "ana")
    await pool.execute(
        "UPDATE refresher.accounts SET state = $1, state_reason = 'x', state_since = $2",
        state,
        in_seconds(-100),
    )
    if state == "active":
        await pool.execute("UPDATE refresher.accounts SET state_reason = NULL")
    before = await row_of(pool, "ana")
    world.emulator.down = "failed"
    code, _, err = await remove("ana")
    assert code == 1
    assert err.startswith("refresher: the consent was not revoked: ")
    assert err.endswith("; nothing was removed: run the command again\n")
    await is_as_before(pool, before)
    world.emulator.down = None
    assert (await remove("ana"))[0] == 0
    assert await row_of(pool, "ana") is None


async def test_sealed_tokens_revoke(world, remove, pool, refresher):
    """They are read with the keys, and seen nowhere."""
    key = Fernet.generate_key().decode()
    await authorize(world, "ana")
    assert (await refresher("tokens", "rotate", token_keys=key))[0] == 0
    assert (await row_of(pool, "ana"))["access_token"].startswith("gAAAA")
    assert (await remove("ana", token_keys=key))[0] == 0
    assert revocations(world) == [("ana", "ok")]


# --- What comes in between ---


async def killed_between(world, start, database, number):
    """End the command with a signal when the consent is revoked and the videos are not deleted."""
    await authorize(world, "ana", 5)
    application = await asyncpg.connect(database)
    held = application.transaction()
    await held.start()
    await application.execute("SELECT FROM refresher.videos FOR UPDATE")
    command = await start(world, command="accounts remove ana --yes", **CLIENT)

    async def no_longer_waits():
        # The server does not see at once that the command is gone.
        await world.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        return not await waits_for_a_lock(world.pool)

    await eventually(lambda: waits_for_a_lock(world.pool), "the deletion of the videos")
    assert revocations(world) == [("ana", "ok")]
    code = await command.stopped(number)
    await eventually(no_longer_waits, "the end of its statement")
    await held.rollback()
    await application.close()
    return code


async def test_killed_after_the_revocation_it_ends_well_the_next_time(
    world, remove, start, database, pool
):
    """The account is paused in between: no daemon works it. TikTok says that the consent is over."""
    assert await killed_between(world, start, database, signal.SIGKILL) == -signal.SIGKILL
    assert await standing(pool, "ana") == ("paused", "is being removed")
    daemon = await start(world, **SETTINGS)
    await authorize(world, "ben")
    await world.until_valid(1)
    assert {arrival.open_id for arrival in world.emulator.record} == {"ben"}
    code, out, err = await remove("ana")
    assert (code, err) == (0, "")
    assert "ana removed: the consent had ended already, 5 videos deleted" in out
    assert await tables_that_name(pool, "ana") == {}
    assert await daemon.stopped() == 0


async def test_a_lock_of_an_application_ends_it_with_what_is_done(world, remove, pool, database):
    """What is left is said; it is no error of the database's."""
    await authorize(world, "ana", 5)
    application = await asyncpg.connect(database)
    async with application.transaction():
        await application.execute("SELECT FROM refresher.videos FOR UPDATE")
        code, _, err = await remove("ana")
    await application.close()
    assert code == 1
    assert err.startswith("refresher: database: ")
    assert err.endswith("; the consent was revoked, not all is deleted: run the command again\n")
    assert (await remove("ana"))[0] == 0


async def test_ctrl_c_while_it_waits_gives_the_account_back(world, start, pool):
    """As it was, and its lease to whoever has it."""
    await authorize(world, "ana")
    await pool.execute(
        "UPDATE refresher.accounts SET token_request_until = now() + interval '1 hour',"
        " lease_owner = 'another', lease_epoch = lease_epoch + 1, lease_expires_at = now() + interval '1 hour'"
    )
    before = await row_of(pool, "ana")
    command = await start(world, command="accounts remove ana --yes", **CLIENT)

    async def paused():
        return (await standing(pool, "ana"))[0] == "paused"

    await eventually(paused, "the pause")
    assert await command.stopped(signal.SIGINT) == 130
    assert dict(await row_of(pool, "ana")) == dict(before)
    assert revocations(world) == []


async def test_a_renewal_that_a_crash_left_open_is_waited_for(world, start, pool):
    """Until its time is over; then the tokens are tried."""
    await authorize(world, "ana", lives=600)
    await pool.execute(
        "UPDATE refresher.accounts SET token_request_until = now() + interval '1 hour'"
    )
    command = await start(world, command="accounts remove ana --yes", **CLIENT)

    async def waits():
        return "waiting, " in command.output.read_text()

    await eventually(waits, "the wait")
    assert await standing(pool, "ana") == ("paused", "is being removed")
    assert revocations(world) == []
    await pool.execute("UPDATE refresher.accounts SET token_request_until = now()")
    assert await command.ended() == 0
    assert revocations(world) == [("ana", "ok")]


async def test_a_table_of_an_application_that_refers_to_the_account(world, remove, pool):
    """It keeps the row: that is said, and what has become of the consent."""
    await authorize(world, "ana")
    await pool.execute(
        "CREATE TABLE likes (open_id text REFERENCES refresher.accounts);"
        " INSERT INTO likes VALUES ('ana')"
    )
    code, _, err = await remove("ana")
    assert (code, err.count("\n")) == (1, 1)
    assert "violates foreign key constraint" in err
    assert err.endswith("; the consent was revoked, not all is deleted: run the command again\n")
    await pool.execute("DROP TABLE likes")
    code, out, _ = await remove("ana")
    assert (code, out.splitlines()[-1].split(": ")[1]) == (
        0, "the consent had ended already, 0 videos deleted",
    )  # fmt: skip


async def test_a_pair_that_comes_late_finds_no_account(world, pool, remove):
    """Used-up tokens of the account are not noted again either."""
    await authorize(world, "ana", lives=600)
    await pool.execute(
        "UPDATE refresher.accounts SET used_token = $1", fingerprint("rft.of-before")
    )
    assert await tables_that_name(pool, "ana")
    assert (await remove("ana"))[0] == 0
    assert await tables_that_name(pool, "ana") == {}


async def test_a_trigger_that_keeps_the_row_is_told(world, remove, pool):
    """Exit 1: nobody is to believe that the account is forgotten."""
    await authorize(world, "ana")
    await pool.execute(
        """
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER keep BEFORE DELETE ON refresher.accounts
        FOR EACH ROW EXECUTE FUNCTION keep();
        """
    )
    code, _, err = await remove("ana")
    assert code == 1
    assert err.startswith("refresher: rows are left in refresher.accounts: a trigger of yours")


# --- What is asked ---


async def typed(database, text, *options, **settings):
    """Run on a terminal on which somebody types. (exit code, what was shown)."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "refresher", "accounts", "remove", *options),
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        env={**environment(database, **settings), "TERM": "xterm-256color"},
    )
    os.close(theirs)
    os.write(ours, text)
    shown = await asyncio.to_thread(read_all, ours)
    return await process.wait(), shown.decode()


async def test_on_a_terminal_it_asks(world, database, pool):
    """Only a yes removes."""
    await authorize(world, "ana", 2)
    settings = {**CLIENT, "tiktok_base_url": world.base_url}
    for text in (b"\n", b"n\n", b"\x04"):
        code, shown = await typed(database, text, "ana", **settings)
        assert code == 1
        assert "Remove ana? [y/N]" in shown
        assert "nothing was removed" in shown
        assert await standing(pool, "ana") == ("active", None)
    code, shown = await typed(database, b"y\n", "ana", **settings)
    assert code == 0
    assert "ana removed: the consent was revoked, 2 videos deleted" in shown


async def test_it_shows_first_what_it_will_do(world, database, pool):
    """Where the consent is kept, too, and what stays."""
    await authorize(world, "ana", 2)
    _, shown = await typed(database, b"n\n", "ana", "--keep-consent")
    lines = dict(line.split(None, 1) for line in shown.splitlines() if "  " in line)
    assert lines["state"].startswith("active, since ")
    assert lines["videos"] == "2"
    assert lines["consent"] == "stays"
    assert lines["deletes"] == "refresher.accounts (1), refresher.videos (2)"
    for words in ("lines of logs", "backups", "rows of your application's own tables"):
        assert words in shown


async def test_without_a_terminal_it_wants_a_yes(refresher):
    """One line, and nothing is read."""
    code, out, err = await refresher("accounts", "remove", "ana")
    assert (code, out) == (2, "")
    assert err == "refresher: expected a terminal to ask on, or --yes\n"


async def test_an_unknown_account(remove):
    """As every other command says it, also for one that looks like an option."""
    for open_id in ("nobody", "-nobody"):
        code, out, err = await remove(open_id, "--keep-consent")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "open_id: expected a known account, not " in err
