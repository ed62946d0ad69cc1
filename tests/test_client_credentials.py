"""The app's own credentials are wrong, and put right; accounts are paused and resumed by hand."""

import re

import pytest

from refresher.domain.credentials import AppCredentials
from refresher.domain.standing import standing_line
from refresher.postgres.constants import FREED_AT_ONCE
from refresher.postgres.sealing import Sealer
from refresher.postgres.status import set_state
from refresher.postgres.tokens import TokenStore, free_waiting
from tests.conftest import eventually
from tests.test_tokens import authorize

RIGHT = {"tiktok_client_key": "key-of-the-app", "tiktok_client_secret": "secret-of-the-app"}
WRONG = {**RIGHT, "tiktok_client_secret": "secret-of-another"}
ACCOUNTS = 6


async def waiting(pool):
    return await pool.fetchval(
        "SELECT count(*) FROM refresher.accounts WHERE token_due_at > now() + interval '1 minute'"
        " AND isfinite(token_due_at) AND token_failures > 0"
    )


@pytest.fixture
async def world(serve):
    """Accounts whose access tokens are dead, and an endpoint that knows the app's credentials."""
    world = await serve(client_key="key-of-the-app", client_secret="secret-of-the-app")
    for number in range(ACCOUNTS):
        await authorize(world, f"dead-{number}", videos=3)
        world.emulator.revoke_access_token(f"dead-{number}")
    return world


async def until_all_wait(pool):
    async def all_wait():
        return await waiting(pool) == ACCOUNTS

    await eventually(all_wait, "all to wait for better credentials")


async def test_right_credentials_help_at_once(world, start, pool):
    """What waited five minutes for them is fresh a moment after the restart, and that is said."""
    daemon = await start(world, poll_seconds=0.2, **WRONG)
    await until_all_wait(pool)
    assert await daemon.stopped() == 0
    daemon = await start(world, poll_seconds=0.2, **RIGHT)
    await world.until_valid(3 * ACCOUNTS, seconds=30)
    assert [event["accounts"] for event in daemon.events("client.replaced")] == [ACCOUNTS]
    assert not daemon.events("client.refused")


async def test_the_same_wrong_credentials_go_on_waiting(world, start, pool):
    """A restart that changes nothing asks nothing of those that wait."""
    daemon = await start(world, poll_seconds=0.2, **WRONG)
    await until_all_wait(pool)
    await daemon.stopped()
    asked = len(world.emulator.token_record)
    daemon = await start(world, poll_seconds=0.2, **WRONG)
    await daemon.until_event("daemon.started")
    await world.add_account("new", 1)
    await world.until_valid(1)
    assert len(world.emulator.token_record) == asked
    assert not daemon.events("client.replaced")
    assert await waiting(pool) == ACCOUNTS


async def test_other_wrong_credentials_are_refused_once_and_wait(world, start, pool):
    """They are tried, as they are others; then all is as before."""
    daemon = await start(world, poll_seconds=0.2, **WRONG)
    await until_all_wait(pool)
    await daemon.stopped()
    daemon = await start(
        world, poll_seconds=0.2, **{**WRONG, "tiktok_client_secret": "a-third-secret"}
    )
    await daemon.until_event("client.refused")
    await until_all_wait(pool)
    assert len(daemon.events("client.refused")) == len(daemon.events("client.replaced")) == 1


async def test_replicas_with_different_credentials_do_not_fight(world, start, pool):
    """Each frees once, at its start. The right one works whatever it comes to claim."""
    wrong = await start(world, poll_seconds=0.2, **WRONG)
    await until_all_wait(pool)
    right = await start(world, poll_seconds=0.2, **RIGHT)
    await right.until_event("client.replaced")

    async def settled():
        return await waiting(pool) + await world.valid() // 3 == ACCOUNTS

    await eventually(settled, "each account to be fresh, or to wait")
    assert len(right.events("client.replaced")) == 1
    assert len(wrong.events("client.replaced")) == 0
    # Whoever restarts with the right ones frees the rest.
    await wrong.stopped()
    await right.stopped()
    await start(world, poll_seconds=0.2, **RIGHT)
    await world.until_valid(3 * ACCOUNTS, seconds=30)


async def test_no_secret_is_stored(pool):
    """Eight bytes of a hash; of both parts, so that none can be moved into the other."""
    client = AppCredentials("key", "secret-of-the-app")
    await TokenStore(pool, Sealer(()), credentials=client.fingerprint).note_refused_credentials()
    stored = await pool.fetchval("SELECT refused_client FROM refresher.app")
    assert re.fullmatch("[0-9a-f]{16}", stored)
    assert stored != AppCredentials("keys", "ecret-of-the-app").fingerprint
    assert "secret-of-the-app" not in repr(client)


async def refused_accounts(pool, accounts, due_in="5 minutes", **columns):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, refresh_token)"
        " SELECT 'n' || i, 'act.x', 'rft.x' FROM generate_series(1, $1) AS i",
        accounts,
    )
    await pool.execute(
        "UPDATE refresher.accounts SET token_failures = 1,"
        f" token_due_at = now() + interval '{due_in}', wake_at = now() + interval '{due_in}'"
    )
    for name, value in columns.items():
        await pool.execute(f"UPDATE refresher.accounts SET {name} = {value}")


async def test_many_are_freed_a_few_at_a_time(pool):
    """Each statement is bounded; all together leave none, and a second call has nothing to do."""
    await TokenStore(pool, Sealer(()), credentials="old").note_refused_credentials()
    await refused_accounts(pool, 2 * FREED_AT_ONCE + 1)
    assert await free_waiting(pool, "old") == 0
    assert await free_waiting(pool, "new") == 2 * FREED_AT_ONCE + 1
    assert await free_waiting(pool, "new") == 0
    assert await pool.fetchval("SELECT bool_and(wake_at <= now()) FROM refresher.accounts")


@pytest.mark.parametrize(
    "columns",
    [
        {"token_due_at": "now() + interval '1 hour'"},
        {"token_due_at": "'infinity'"},
        {"token_failures": "0"},
        {"state": "'paused'"},
        {"state": "'needs_reauthorization'"},
    ],
    ids=["later", "never", "its first time", "paused", "parked"],
)
async def test_what_waits_for_something_else_is_left_alone(pool, columns):
    """Only what the refused credentials can have made wait."""
    await TokenStore(pool, Sealer(()), credentials="old").note_refused_credentials()
    await refused_accounts(pool, 3, **columns)
    assert await free_waiting(pool, "new") == 0


async def test_an_old_refusal_frees_nobody(pool):
    """What waits an hour later waits for another reason."""
    await TokenStore(pool, Sealer(()), credentials="old").note_refused_credentials()
    await pool.execute("UPDATE refresher.app SET client_refused_at = now() - interval '1 hour'")
    await refused_accounts(pool, 3)
    assert await free_waiting(pool, "new") == 0


async def test_a_locked_account_is_passed_over(pool):
    """A long transaction does not hold the start; the account's wait ends by itself."""
    await TokenStore(pool, Sealer(()), credentials="old").note_refused_credentials()
    await refused_accounts(pool, 3)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM refresher.accounts WHERE open_id = 'n1' FOR UPDATE")
        assert await free_waiting(pool, "new") == 2


async def test_one_accounts_trigger_keeps_nobody_elses_wait(pool):
    """Whose UPDATE raises is said, whose is undone is tried once, and all others are freed."""
    await TokenStore(pool, Sealer(()), credentials="old").note_refused_credentials()
    await refused_accounts(pool, 9)
    await pool.execute(
        "CREATE FUNCTION public.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.open_id = 'n1' THEN RAISE 'not this one'; END IF;"
        " IF NEW.open_id = 'n2' THEN NEW.token_due_at := OLD.token_due_at; END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER meddle BEFORE UPDATE ON refresher.accounts"
        " FOR EACH ROW EXECUTE FUNCTION public.meddle()"
    )
    refused = []
    freed = await free_waiting(pool, "new", lambda open_id, _: refused.append(open_id))
    assert (freed, refused) == (8, ["n1"])
    due = "SELECT open_id FROM refresher.accounts WHERE token_due_at > now() ORDER BY open_id"
    assert [row["open_id"] for row in await pool.fetch(due)] == ["n1", "n2"]


# --- By hand ---

HOUR = "now() + interval '1 hour'"


@pytest.mark.parametrize(
    ("columns", "state", "managed", "said"),
    [
        ({}, "paused", True, "active -> paused; it is not asked for until it is resumed"),
        (
            {"lease_expires_at": HOUR, "lease_owner": "'x'"},
            "paused",
            True,
            (
                "active -> paused; it is being worked just now: what is in flight is finished, then it"
                " rests"
            ),
        ),
        (
            {"state": "'paused'", "state_since": "'2026-11-28 12:00:00+00'"},
            "paused",
            True,
            (
                "paused already, since 2026-11-28 12:00:00+00:00; it is not asked for until it is"
                " resumed"
            ),
        ),
        (
            {"state": "'paused'"},
            "active",
            True,
            "paused -> active; what is due is asked for at once",
        ),
        (
            {"state_since": "'2026-11-28 12:00:00+00'"},
            "active",
            True,
            "active already, since 2026-11-28 12:00:00+00:00; what is due is asked for at once",
        ),
        (
            {"lease_expires_at": HOUR, "lease_owner": "'x'"},
            "active",
            True,
            r"active already, since [^;]*; what is due is asked for just now",
        ),
        (
            {"next_slot_at": "'2126-11-28 12:00:00+00'"},
            "active",
            True,
            (
                r"active already, since [^;]*; what is due is asked for from 2126-11-28 12:00:00\+00:00"
                " on"
            ),
        ),
        (
            {"token_failures": "3", "token_due_at": HOUR},
            "active",
            True,
            (
                r"active already, since [^;]*; what is due is asked for at once, its access token is"
                " refreshed first"
            ),
        ),
        (
            {"state": "'needs_reauthorization'", "token_standing": "'refused'"},
            "active",
            True,
            (
                "needs_reauthorization -> active; what is due is asked for at once, its access token is"
                " refreshed first; parked again if TikTok still refuses it"
            ),
        ),
        (
            {"state": "'needs_scope'"},
            "active",
            False,
            (
                "needs_scope -> active; what is due is asked for at once; parked again if TikTok still"
                " refuses it"
            ),
        ),
        (
            {"state": "'needs_reauthorization'", "token_standing": "'refused'"},
            "active",
            False,
            (
                "needs_reauthorization -> active; but the access token is dead and not refreshed by this"
                " program as it is set: it is parked again unless new tokens are stored"
            ),
        ),
        (
            {"access_token_expires_at": "now()", "refresh_token": "NULL"},
            "active",
            True,
            (
                r"active already, since [^;]*; but the access token is dead and there is no refresh"
                " token: it is parked again unless new tokens are stored"
            ),
        ),
    ],
)
async def test_what_was_done_by_hand_is_said(pool, columns, state, managed, said):
    """In one line: from which state to which, when it is asked for, what could not be done."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, refresh_token)"
        " VALUES ('ana', 'act.x', 'rft.x')"
    )
    for name, value in columns.items():
        await pool.execute(f"UPDATE refresher.accounts SET {name} = {value}")
    standing = await set_state(pool, "ana", state, None)
    line = standing_line("ana", standing, managed=managed)
    if said.startswith(("active already, since [",)):
        assert re.fullmatch(f"ana: {said}", line)
    else:
        assert line == f"ana: {said}"


async def test_resuming_ends_the_wait_of_a_token(world, start, pool):
    """The operator says now: it is asked for within a poll, not after the back-off."""
    await pool.execute(
        "UPDATE refresher.accounts SET token_failures = 5, token_due_at = now() + interval '1 hour',"
        " wake_at = now() + interval '1 hour'"
    )
    await start(world, poll_seconds=0.2, **RIGHT)
    command = await start(command="accounts resume dead-0", **RIGHT)
    assert await command.ended() == 0
    assert command.output.read_text().count("\n") == 1
    await world.until_valid(3, seconds=20)
    assert await world.valid() == 3
