"""Whatever the database raises for one account's rows, or however long it takes, stops nobody else.

What it raises for no rows at all is the database's own matter: it is away.
"""

import asyncio

import pytest
from asyncpg import PostgresError
from asyncpg.exceptions import ConnectionDoesNotExistError

from refresher.domain.errors import DatabaseUnavailable, is_away
from refresher.postgres import opening
from refresher.postgres.failures import available
from tests.conftest import eventually

ACCOUNTS, VIDEOS_EACH = 8, 20
OTHERS = (ACCOUNTS - 1) * VIDEOS_EACH
PATIENCE_SECONDS = 60

#: What an application's trigger may stumble over, by the SQLSTATE that comes of it.
BODIES = {
    "P0001": "RAISE 'bad'",
    "22023": "PERFORM jsonb_array_elements('{}'::jsonb)",
    "22P02": "PERFORM 'x'::int",
    "42P01": "PERFORM FROM no_such_table",
    "42704": "PERFORM 'x'::regtype",
    "42883": "PERFORM no_such_function()",
    "3F000": "CREATE TABLE no_such_schema.t ()",
    "55000": "PERFORM currval('public.nothing_yet')",
    **{
        code: f"RAISE 'bad' USING ERRCODE = '{code}'"
        for code in (
            *("08006", "0A000", "22000", "23514", "25006", "28P01", "38000", "3D000"),
            *("42501", "42703", "53400", "54001", "55006", "57014", "57P01", "58000", "58P01"),
            *("HV000", "P0002", "P0003", "P0004", "XX000", "XX001", "ZZ999"),
        )
    },
}
#: A code of each way there is, for what takes long to test.
SOME = ("22023", "42501", "42P01", "57014", "XX000")

RELEASE = ("accounts", "NEW.lease_owner IS NULL")


async def spoil(pool, table, body, when="true"):
    """One account's rows make a trigger of the application do this; all that it needs is there."""
    await pool.execute("CREATE SEQUENCE IF NOT EXISTS public.nothing_yet")
    await pool.execute(
        "CREATE FUNCTION public.mine() RETURNS trigger LANGUAGE plpgsql AS $$"
        f" BEGIN IF NEW.open_id = 'account-3' AND {when} THEN {body}; END IF; RETURN NEW; END $$"
    )
    await pool.execute(
        f"CREATE TRIGGER mine BEFORE UPDATE ON refresher.{table}"
        " FOR EACH ROW EXECUTE FUNCTION public.mine()"
    )


async def fleet(serve, **options):
    world = await serve(**options)
    for number in range(ACCOUNTS):
        await world.add_account(f"account-{number}", videos=VIDEOS_EACH)
    return world


@pytest.mark.parametrize("code", BODIES)
async def test_a_video_that_raises_costs_only_its_account(serve, start, pool, code):
    """The others are written, the account says why, and the database is not taken for lost."""
    world = await fleet(serve)
    await spoil(pool, "videos", BODIES[code])
    daemon = await start(world, poll_seconds=0.2)
    await world.until_valid(OTHERS)
    failed = await daemon.until_event("account.failed")
    assert failed["open_id"] == "account-3"
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


@pytest.mark.parametrize("code", SOME)
async def test_an_account_that_raises_at_a_claim_stops_nobody(serve, start, pool, code):
    """The others are claimed, and it is said which one was not."""
    world = await fleet(serve)
    await spoil(pool, "accounts", BODIES[code])
    daemon = await start(world, poll_seconds=0.2)
    await world.until_valid(OTHERS)
    refused = await daemon.until_event("account.refused")
    assert (refused["open_id"], refused["at"]) == ("account-3", "claim")
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


@pytest.mark.parametrize("code", SOME)
async def test_an_account_that_raises_at_a_release_stops_nobody(serve, start, pool, code):
    """All is written, and the others are given back."""
    world = await fleet(serve)
    await spoil(pool, "accounts", BODIES[code], when="NEW.lease_owner IS NULL")
    daemon = await start(world, poll_seconds=0.2)
    await world.until_valid(ACCOUNTS * VIDEOS_EACH)
    refused = await daemon.until_event("account.refused")
    assert (refused["open_id"], refused["at"]) == ("account-3", "release")
    await eventually(lambda: only_its_lease_is_left(pool), "the others given back")
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


async def only_its_lease_is_left(pool):
    leased = await pool.fetch("SELECT open_id FROM refresher.accounts WHERE lease_owner <> ''")
    return [row["open_id"] for row in leased] in ([], ["account-3"])


@pytest.mark.parametrize(
    ("table", "when"),
    [("videos", "true"), ("accounts", "NOT NEW.lease_owner IS NULL"), RELEASE],
    ids=["write-back", "claim", "release"],
)
async def test_an_account_that_is_only_slow_stops_nobody(serve, start, pool, table, when):
    """A trigger that takes longer than a statement may, for one account, holds no lock."""
    world = await fleet(serve)
    await spoil(pool, table, f"PERFORM pg_sleep({3 * opening.STATEMENT_SECONDS})", when)
    daemon = await start(world, poll_seconds=0.2, shutdown_grace_seconds=2)
    await world.until_valid(OTHERS, PATIENCE_SECONDS)
    event = "account.failed" if table == "videos" else "account.refused"

    async def said():
        return [line["open_id"] for line in daemon.events(event)] == ["account-3"]

    await eventually(said, f"one {event}", PATIENCE_SECONDS)
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


async def test_a_token_that_is_sealed_slowly_stops_nobody(serve, start, pool):
    """It stays as it is for now; claims do not wait for it as long as a statement may take."""
    world = await fleet(serve)
    slow = f"PERFORM pg_sleep({3 * opening.STATEMENT_SECONDS})"
    await spoil(pool, "accounts", slow, "NEW.access_token <> OLD.access_token")
    key = "Vx4mLk1vQ2Nn4cQm8oY4mJt0K3m3b8f1cW0m6x9Qf2E="
    daemon = await start(world, poll_seconds=0.2, token_keys=key)
    await world.until_valid(OTHERS, opening.STATEMENT_SECONDS)
    await world.until_valid(ACCOUNTS * VIDEOS_EACH)
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


#: What takes the whole database out of reach, and what puts it right.
OUT_OF_REACH = {
    "a table that is not there": (
        "ALTER TABLE refresher.videos RENAME TO away",
        "ALTER TABLE refresher.away RENAME TO videos",
    ),
    "a schema that is not there": (
        "ALTER SCHEMA refresher RENAME TO away",
        "ALTER SCHEMA away RENAME TO refresher",
    ),
    "a column that is not there": (
        "ALTER TABLE refresher.videos RENAME misses TO away",
        "ALTER TABLE refresher.videos RENAME away TO misses",
    ),
}


@pytest.mark.parametrize("what", OUT_OF_REACH)
async def test_what_fails_for_no_rows_is_outlasted(serve, start, pool, what):
    """It is said once with its words, nothing is lost or asked twice, and nothing spins."""
    gone, back = OUT_OF_REACH[what]
    world = await fleet(serve, latency_seconds=1)
    daemon = await start(world, poll_seconds=0.2)
    await eventually(lambda: asked(world), "requests under way")
    await pool.execute(gone)
    lost = await daemon.until_event("database.lost")
    assert "not exist" in lost["reason"]
    before = await statements(pool)
    await asyncio.sleep(3)  # a stretch of time in which it might spin
    assert await statements(pool) - before < 3 * 20
    await pool.execute(back)
    await world.until_valid(ACCOUNTS * VIDEOS_EACH)
    assert len(world.emulator.record) == ACCOUNTS
    assert daemon.events("account.failed") == []
    assert len(daemon.events("database.lost")) == 1
    assert await daemon.stopped() == 0


async def asked(world):
    return len(world.emulator.record) == ACCOUNTS


async def statements(pool):
    """How many transactions have ended in this database."""
    await pool.execute("SELECT pg_stat_force_next_flush()")
    return await pool.fetchval(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database"
        " WHERE datname = current_database()"
    )


def told(code, severity="ERROR"):
    return PostgresError.new({"C": code, "S": severity, "V": severity, "M": "no"})


@pytest.mark.parametrize(
    "error",
    [
        *(told(code, "FATAL") for code in ("57P01", "08P01", "58000", "XX000", "42501", "P0001")),
        *(told(code) for code in ("53000", "53100", "53200", "53300", "58030", "26000", "42P05")),
        ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        ConnectionResetError(),
    ],
    ids=repr,
)
def test_what_can_be_no_rows_matter(error):
    """The session has ended, or the server has no room: no statement about rows is to blame."""
    with pytest.raises(DatabaseUnavailable) as raised, available():
        raise error
    assert is_away(raised.value)
