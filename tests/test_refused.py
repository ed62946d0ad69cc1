"""A trigger or lock of an application on accounts: it stops its account, not the others."""

from contextlib import asynccontextmanager

import asyncpg
import pytest

from refresher.domain.conclude import conclude
from refresher.postgres.audit import audit_step
from refresher.postgres.database import acquired
from refresher.postgres.sealing import Sealer, seal_all
from refresher.postgres.tokens import consents_ending
from tests.conftest import eventually
from tests.test_claims import replica, store

KEY = "Vx4mLk1vQ2Nn4cQm8oY4mJt0K3m3b8f1cW0m6x9Qf2E="
ACCOUNTS, VIDEOS_EACH = 30, 20


async def on_update(pool, body, when="BEFORE"):
    """A trigger of the application on accounts, for each row that is updated."""
    await pool.execute(
        "CREATE OR REPLACE FUNCTION public.mine() RETURNS trigger LANGUAGE plpgsql AS $$"
        f" BEGIN {body} RETURN NEW; END $$"
    )
    await pool.execute(
        f"CREATE OR REPLACE TRIGGER mine {when} UPDATE ON refresher.accounts"
        " FOR EACH ROW EXECUTE FUNCTION public.mine()"
    )


async def drop(pool):
    await pool.execute("DROP TRIGGER mine ON refresher.accounts")


RAISES = "IF OLD.open_id = 'account-7' THEN RAISE 'account-7 is under audit'; END IF;"
SUPPRESSES = "IF OLD.open_id = 'account-7' THEN RETURN NULL; END IF;"
RELEASE_RAISES = (
    "IF OLD.open_id = 'account-7' AND NEW.lease_owner IS NULL THEN RAISE 'not now'; END IF;"
)
WAITS = "IF OLD.open_id = 'account-7' THEN PERFORM FROM public.profiles FOR UPDATE; END IF;"


async def fleet(world):
    for number in range(ACCOUNTS):
        await world.add_account(f"account-{number}", videos=VIDEOS_EACH)


@pytest.mark.parametrize(
    ("body", "at", "reason"),
    [
        (RAISES, "claim", "account-7 is under audit"),
        (SUPPRESSES, "claim", "its lease was not stored: a trigger suppresses the UPDATE"),
    ],
    ids=["raises", "suppresses"],
)
async def test_an_account_that_cannot_be_claimed_stops_nobody(serve, start, pool, body, at, reason):
    """The others are fresh at once, it is said once, and the one is when the trigger has gone."""
    world = await serve()
    await fleet(world)
    await on_update(pool, body)
    daemon = await start(world, poll_seconds=0.2)
    await world.until_valid((ACCOUNTS - 1) * VIDEOS_EACH)
    refused = await daemon.until_event("account.refused")
    assert (refused["open_id"], refused["at"], refused["reason"]) == ("account-7", at, reason)
    assert len(world.emulator.record) == ACCOUNTS - 1
    await drop(pool)
    await world.until_valid(ACCOUNTS * VIDEOS_EACH)
    await world.until_no_leases()
    assert len(daemon.events("account.refused")) == 1
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


SLOW_FOR_ONE = "IF OLD.open_id = 'account-7' THEN PERFORM pg_sleep(1.5); END IF;"
SLOW_FOR_ALL = "PERFORM pg_sleep(0.2);"


@pytest.mark.parametrize("body", [SLOW_FOR_ONE, SLOW_FOR_ALL], ids=["one", "all"])
async def test_slots_are_not_missed_for_a_trigger_that_takes_long(serve, start, pool, body):
    """Far below any time-out; each claim then comes later than its slots, but they begin later."""
    world = await serve()
    await fleet(world)
    await on_update(pool, body)
    daemon = await start(world)
    await world.until_valid(ACCOUNTS * VIDEOS_EACH)
    assert await daemon.stopped() == 0


async def test_an_account_that_cannot_be_given_back_stops_nobody(serve, start, pool):
    """Its covers are written; its lease runs out, and it is left alone for a while."""
    world = await serve()
    await fleet(world)
    await on_update(pool, RELEASE_RAISES)
    daemon = await start(world, poll_seconds=0.2, lease_seconds=3)
    await world.until_valid(ACCOUNTS * VIDEOS_EACH)
    refused = await daemon.until_event("account.refused")
    assert (refused["open_id"], refused["at"]) == ("account-7", "release")
    leased = "SELECT open_id FROM refresher.accounts WHERE lease_owner IS NOT NULL"

    async def the_one_is_left():
        return [row["open_id"] for row in await pool.fetch(leased)] == ["account-7"]

    await eventually(the_one_is_left, "the leases of all others given back")
    await drop(pool)
    await world.until_no_leases()
    assert await daemon.stopped() == 0


@asynccontextmanager
async def profile_held(database):
    application = await asyncpg.connect(
        database, server_settings={"application_name": "nightly report"}
    )
    try:
        async with application.transaction():
            await application.execute("SELECT FROM public.profiles FOR UPDATE")
            yield
    finally:
        await application.close()


async def test_an_account_whose_claim_waits_stops_nobody(serve, start, pool, database):
    """A lock behind a trigger on accounts: the others are fresh, the one is when it is let go."""
    world = await serve()
    await fleet(world)
    await pool.execute("CREATE TABLE public.profiles AS SELECT 'ana' AS name")
    await on_update(pool, WAITS)
    async with profile_held(database):
        daemon = await start(world, poll_seconds=0.2)
        await world.until_valid((ACCOUNTS - 1) * VIDEOS_EACH)
        assert (await daemon.until_event("account.refused"))["open_id"] == "account-7"
    await world.until_valid(ACCOUNTS * VIDEOS_EACH)
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


async def test_a_release_that_waits_stops_nobody(serve, start, pool, database):
    """It waits apart, who holds the lock is said, and it is given back when the lock is let go."""
    world = await serve()
    await fleet(world)
    await pool.execute("CREATE TABLE public.profiles AS SELECT 'ana' AS name")
    await on_update(pool, f"IF NEW.lease_owner IS NULL THEN {WAITS} END IF;")
    async with profile_held(database):
        daemon = await start(world, poll_seconds=0.2)
        await world.until_valid(ACCOUNTS * VIDEOS_EACH)
        blocked = await daemon.until_event("release.blocked")
        assert blocked["open_id"] == "account-7"
        assert blocked["holder_application"] == "nightly report"
        leased = "SELECT open_id FROM refresher.accounts WHERE lease_owner IS NOT NULL"
        assert [row["open_id"] for row in await pool.fetch(leased)] == ["account-7"]
    await world.until_no_leases()
    await daemon.until_event("release.freed")
    assert await daemon.stopped() == 0


async def test_many_releases_that_wait_stop_nobody(serve, start, pool, database):
    """Sixty of seventy: the others are given back soon, and their new videos asked for as ever."""
    world = await serve()
    for number in range(60):
        await world.add_account(f"a-{number}", videos=1)
    for number in range(10):
        await world.add_account(f"b-{number}", videos=1)
    await pool.execute("CREATE TABLE public.profiles AS SELECT 'ana' AS name")
    waits = WAITS.replace("OLD.open_id = 'account-7'", "OLD.open_id < 'b'")
    await on_update(pool, f"IF NEW.lease_owner IS NULL THEN {waits} END IF;")
    async with profile_held(database):
        daemon = await start(world, poll_seconds=0.2)
        await world.until_valid(70)

        async def others_are_given_back():
            ended = [log["open_id"] for log in daemon.events("account.refreshed")]
            return sum(open_id.startswith("b") for open_id in ended) >= 10

        await eventually(others_are_given_back, "the others' releases")
        took = [log["took_seconds"] for log in daemon.events("account.refreshed")]
        assert max(took) < 10
        await daemon.until_event("release.blocked", count=30)
        for turn in range(5):
            await world.add_videos(f"b-{turn}", 1)
            await world.until_valid(71 + turn, seconds=5)
    await world.until_no_leases()
    assert await daemon.stopped() == 0


async def test_a_release_that_waits_is_one_statement(pool):
    """No transaction around it holds its row's lock, should the machine vanish in between."""
    await store(pool, "account-7", 3)
    (claim,) = await replica(pool).claim(10)
    await pool.execute("CREATE TABLE public.seen (name text, lock_timeout text)")
    await on_update(
        pool,
        "INSERT INTO public.seen VALUES"
        " (current_setting('application_name'), current_setting('lock_timeout'));",
    )
    asked = []
    async with acquired(pool) as connection:
        connection.add_query_logger(lambda record: asked.append(record.query))
    release = conclude(claim, [], 0.5)
    (released,) = await replica(pool).release_alone([release], 0.3, "refresher waits 7")
    assert released
    assert await pool.fetchrow("SELECT * FROM public.seen") == ("refresher waits 7", "300ms")
    assert any("'lock_timeout'" in query for query in asked)
    assert [query for query in asked if query.startswith(("BEGIN", "COMMIT"))] == []
    assert await pool.fetchval("SHOW application_name") == "tests"


async def test_a_trigger_that_refuses_all_is_said_and_waited_out(serve, start, pool):
    """It is no account's matter: one event with its reason, and the same process goes on."""
    world = await serve()
    await fleet(world)
    await pool.execute(
        "CREATE FUNCTION public.mine() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE 'frozen for the audit'; END $$"
    )
    await pool.execute(
        "CREATE TRIGGER mine BEFORE UPDATE ON refresher.accounts"
        " FOR EACH STATEMENT EXECUTE FUNCTION public.mine()"
    )
    daemon = await start(world, poll_seconds=0.2)
    lost = await daemon.until_event("database.lost")
    assert lost["reason"] == "frozen for the audit"
    assert len(world.emulator.record) == 0
    await drop(pool)
    await world.until_valid(ACCOUNTS * VIDEOS_EACH)
    assert await daemon.stopped() == 0


async def test_a_rule_that_refuses_all_results_is_said_and_they_are_kept(serve, start, pool):
    """On videos no row is to blame: what was fetched is kept, and written when the rule is gone."""
    world = await serve()
    await fleet(world)
    await pool.execute("CREATE TABLE public.log (video_id text)")
    await pool.execute(
        "CREATE RULE mine AS ON UPDATE TO refresher.videos"
        " DO ALSO INSERT INTO public.log VALUES (NEW.video_id)"
    )
    daemon = await start(world, poll_seconds=0.2, concurrency=2)
    lost = await daemon.until_event("database.lost")
    assert "rules are not supported" in lost["reason"]
    await pool.execute("DROP RULE mine ON refresher.videos")
    await world.until_valid(ACCOUNTS * VIDEOS_EACH)
    assert len(world.emulator.record) == ACCOUNTS
    assert daemon.events("account.failed") == []
    assert await daemon.stopped() == 0


async def test_the_audit_passes_by_an_account_whose_row_it_cannot_write(pool):
    """The others' counts are mended, the walk goes on, and it is told which one it was."""
    for number in range(5, 10):
        await store(pool, f"account-{number}", 3, due_in=1000)
    await pool.execute("UPDATE refresher.accounts SET wake_at = 'infinity'")
    await on_update(pool, RAISES)
    refused = []
    mended = await audit_step(pool, refused=lambda open_id, _: refused.append(open_id))
    assert sorted(open_id for open_id, _ in mended) == [
        f"account-{number}" for number in (5, 6, 8, 9)
    ]
    assert refused == ["account-7"]
    assert await pool.fetchval("SELECT audited_to FROM refresher.audit") == "account-9"


async def test_leases_are_extended_beside_one_that_cannot_be(pool):
    """One account's trigger costs the others nothing."""
    for number in range(5, 10):
        await store(pool, f"account-{number}", 3)
    claims = await replica(pool).claim(10)
    await on_update(pool, RAISES)
    left = await replica(pool, lease=100).extend(claims)
    by_id = dict(zip([claim.open_id for claim in claims], left, strict=True))
    assert by_id.pop("account-7") is None
    assert [round(seconds) for seconds in by_id.values()] == [100] * 4


async def test_tokens_are_sealed_beside_one_that_cannot_be(pool):
    """Also by a claim, which brings what it could not seal as it is."""
    for number in range(5, 10):
        await store(pool, f"account-{number}", 3)
    await on_update(
        pool,
        "IF OLD.open_id = 'account-7' AND NEW.access_token <> OLD.access_token"
        " THEN RAISE 'hands off'; END IF;",
    )
    sealer = Sealer([KEY])
    refused = []
    assert await seal_all(pool, sealer, lambda open_id, _: refused.append(open_id)) == 4
    assert refused == ["account-7"]


async def test_consents_are_warned_of_beside_one_that_cannot_be(pool):
    """The others are told, and the round comes to its end."""
    for number in range(5, 10):
        await store(pool, f"account-{number}", 0)
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token = 'rft.x',"
        " refresh_token_expires_at = now() + interval '2 days'"
    )
    await on_update(pool, RAISES)
    refused = []
    ending = await consents_ending(pool, lambda open_id, _: refused.append(open_id))
    assert sorted(open_id for open_id, *_ in ending) == [
        f"account-{number}" for number in (5, 6, 8, 9)
    ]
    assert refused == ["account-7"]
