"""How soon an inserted video is asked for, whatever holds its account's row when we look."""

import asyncio
from contextlib import asynccontextmanager
from time import monotonic

from refresher.postgres.audit import audit_step
from refresher.postgres.statements import statement
from tests.conftest import eventually, waits_for_a_lock
from tests.test_claims import account, replica, store


async def asleep(pool, *open_ids):
    """Accounts with nothing due, as releases leave them."""
    for open_id in open_ids:
        await store(pool, open_id, 3, due_in=1000)
    await pool.execute("UPDATE refresher.accounts SET wake_at = now() + interval '1000 seconds'")


async def insert(pool, open_id):
    await pool.execute("INSERT INTO refresher.videos VALUES ($1, $1 || 'new')", open_id)


@asynccontextmanager
async def held(pool, open_id):
    """Somebody's transaction, which has the row of an account."""
    async with pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(
            "SELECT FROM refresher.accounts WHERE open_id = $1 FOR NO KEY UPDATE", open_id
        )
        try:
            yield
        finally:
            await transaction.rollback()


async def test_a_claim_knows_that_others_held_what_is_due(pool):
    """The row of an account with something due is locked; of one with nothing due it is no matter."""
    await asleep(pool, "ana", "ben")
    claims = replica(pool)
    async with held(pool, "ana"):
        assert await claims.claim(10) == []
        assert not claims.skipped_locked
    await insert(pool, "ana")
    async with held(pool, "ana"):
        assert await claims.claim(10) == []
        assert claims.skipped_locked
    assert [claim.open_id for claim in await claims.claim(10)] == ["ana"]
    assert not claims.skipped_locked
    await claims.claim(10)
    assert not claims.skipped_locked


async def test_what_was_held_at_a_poll_is_asked_for_right_after(serve, start, pool):
    """A row that is locked at the very moment of the poll costs its account no further poll."""
    world = await serve()
    await world.add_account("ana", videos=1)

    async def claimed():
        return await pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'refresher' AND state = 'idle'"
            # The view cuts long statements off.
            " AND query <> '' AND starts_with($1, query)",
            statement("claim").text,
        )

    async with held(pool, "ana"):
        await start(world, poll_seconds=60)
        await eventually(claimed, "a claim")
        await asyncio.sleep(0.5)  # the lock lasts
        assert not world.emulator.record
    await world.until_valid(1, seconds=30)


async def test_the_audit_holds_no_account_while_it_counts(pool):
    """An account with a new video is claimed in the middle of an audit's step, which leaves it."""
    await asleep(pool, "ana", "ben")
    await insert(pool, "ana")
    await pool.execute(
        # Counting takes a while.
        "CREATE FUNCTION public.slowly() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        " IF current_query() LIKE '%counted_accounts%' THEN"
        " PERFORM pg_advisory_xact_lock_shared(7); END IF; RETURN true; END $$"
    )
    await pool.execute("ALTER TABLE refresher.videos RENAME TO all_videos")
    await pool.execute(
        "CREATE VIEW refresher.videos AS"
        " SELECT v.ctid, v.* FROM refresher.all_videos AS v WHERE public.slowly()"
    )
    async with pool.acquire() as other:
        await other.execute("SELECT pg_advisory_lock(7)")
        auditing = asyncio.create_task(audit_step(pool))
        await eventually(lambda: waits_for_a_lock(other), "an audit that counts")
        claims = replica(pool)
        (claim,) = await claims.claim(10)
        assert claim.open_id == "ana"
        await other.execute("SELECT pg_advisory_unlock(7)")
    assert await auditing == []
    ana, ben = await account(pool, "ana"), await account(pool, "ben")
    assert (ana["videos"], ben["videos"]) == (0, 3)
    assert ana["lease_epoch"] == claim.lease_epoch
    assert ana["wake_at"] == claim.lease_expires_at


async def test_a_wake_up_amid_an_audit_stands(pool):
    """A video inserted while an account is counted wakes it; what was counted is not stored."""
    await asleep(pool, "ana")
    await pool.execute("UPDATE refresher.accounts SET wake_at = 'infinity'")
    async with pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await insert(other, "ana")
        # Its row is locked and its new wake-up not to be seen: passed by.
        assert await audit_step(pool) == []
        await transaction.commit()
    row = await account(pool, "ana")
    assert row["wake_at"] <= row["now"]
    assert row["videos"] == 0


async def test_inserts_beside_audits_are_asked_for_within_a_poll(serve, start, pool):
    """Forty videos at different moments, with audit steps all the while and a second replica."""
    world = await serve()
    poll = 5.0
    names = [f"account-{number}" for number in range(20)]
    for name in names:
        await world.add_account(name, videos=20)
    for _ in range(2):
        await start(world, poll_seconds=poll)
    await world.until_valid(400)
    await world.until_no_leases()

    async def audit():
        while True:
            # Something to be mended in each step.
            await pool.execute("UPDATE refresher.accounts SET valid = valid + 1")
            await audit_step(pool)

    async def asked_after(number):
        await asyncio.sleep(number * 0.31)
        (video_id,) = await world.add_videos(names[number % len(names)], 1)
        inserted = monotonic()
        while True:
            for arrival in list(world.emulator.record):
                if video_id in arrival.video_ids:
                    return arrival.at - inserted
            await asyncio.sleep(0.01)

    auditing = asyncio.create_task(audit())
    took = await asyncio.gather(*(asked_after(number) for number in range(40)))
    auditing.cancel()
    # What is passed by at a poll would wait for another one: two polls, less what it came late.
    assert max(took) < 1.6 * poll, took
