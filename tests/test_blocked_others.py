"""Accounts that wait for an application's lock, for long: what that costs the others."""

import asyncio
from time import monotonic

import pytest

from refresher.postgres import parts
from refresher.postgres.parts import in_parts
from tests.conftest import eventually, until
from tests.test_claims import replica, store
from tests.test_lock_waits import carry_covers, held, valid_of_others
from tests.test_refused import RAISES, RELEASE_RAISES, WAITS, drop, on_update, profile_held

#: What `account-7` alone waits for, or raises, as others of a number do.
SOME_WAIT = WAITS.replace("OLD.open_id = 'account-7'", "OLD.open_id < 'b'")
RENEWAL_RAISES = RAISES.replace(
    "OLD.open_id = 'account-7'",
    "OLD.open_id = 'account-7' AND NEW.lease_epoch = OLD.lease_epoch"
    " AND NEW.lease_owner IS NOT NULL",
)


async def profiles(pool):
    await pool.execute("CREATE TABLE public.profiles AS SELECT 'ana' AS name")


async def test_claims_that_wait_for_a_lock_cost_no_other_a_slot(serve, start, pool, database):
    """Twelve wait behind a trigger; what falls due beside them is asked for in its slots."""
    world = await serve()
    for number in range(12):
        await world.add_account(f"a-{number}", videos=1)
    for number in range(10):
        await world.add_account(f"b-{number}", videos=1)
    await profiles(pool)
    await on_update(pool, SOME_WAIT)
    async with profile_held(database):
        daemon = await start(world, poll_seconds=0.2)
        await world.until_valid(10)
        await daemon.until_event("account.refused", count=12)
        for turn in range(30):
            await world.add_videos(f"b-{turn % 10}", 3)
            await until(monotonic() + 0.2)
        await world.until_valid(10 + 90)
        worked = daemon.events("account.refreshed")
        # Said once. Let go, they wait for each other at the one row, which may be said anew.
        assert len(daemon.events("account.refused")) == 12
    assert len(worked) >= 30
    # The machine itself may be late once.
    assert sum(log["postponed"] for log in worked) <= 1
    await world.until_valid(100 + 12)
    assert daemon.events("database.lost") == []
    assert await daemon.stopped() == 0


async def test_a_release_that_is_refused_again_and_again_is_said_once(serve, start, pool):
    """Lease after lease runs out; and when the trigger has gone it is as the others."""
    world = await serve()
    for number in range(5, 10):
        await world.add_account(f"account-{number}", videos=2)
    await on_update(pool, RELEASE_RAISES)
    daemon = await start(world, poll_seconds=0.2, lease_seconds=2, request_timeout_seconds=0.5)
    await world.until_valid(10)
    epoch = "SELECT lease_epoch FROM refresher.accounts WHERE open_id = 'account-7'"

    first = await pool.fetchval(epoch)

    async def leased_often():
        return await pool.fetchval(epoch) >= first + 3

    await eventually(leased_often, "further leases of account-7")
    assert [log["at"] for log in daemon.events("account.refused")] == ["release"]
    abandoned = [log["open_id"] for log in daemon.events("account.abandoned")]
    assert abandoned.count("account-7") == 1
    await drop(pool)
    await world.until_no_leases()
    assert await daemon.stopped() == 0


async def test_once_gives_up_on_a_result_that_waits(serve, start, database):
    """The others are written, and it says by its exit code that one could not be answered."""
    world = await serve()
    ids = [await world.add_account(f"account-{number}", videos=20) for number in range(8)]
    await carry_covers(world)
    async with held(database, ids[3][0]):
        once = await start(world, command="once", shutdown_grace_seconds=5)
        assert await once.ended() == 1
        assert await valid_of_others(world, "account-3") == 7 * 20
        await world.until_no_leases()
    output = once.output.read_text()
    assert output.count('"chunk.blocked"') == 1
    assert "20 due videos could not be answered" in output


@pytest.mark.parametrize(
    "body",
    [WAITS, f"IF NEW.lease_owner IS NULL THEN {WAITS} END IF;", RAISES],
    ids=["claim waits", "release waits", "claim raises"],
)
async def test_once_gives_up_on_an_account_that_is_stopped(serve, start, pool, database, body):
    """By a lock or a trigger on its row, for long, when nothing else is left."""
    world = await serve()
    for number in range(5, 10):
        await world.add_account(f"account-{number}", videos=20)
    await profiles(pool)
    await on_update(pool, body)
    async with profile_held(database):
        once = await start(world, command="once", shutdown_grace_seconds=5)
        code = await once.ended()
    assert await valid_of_others(world, "account-7") == 4 * 20
    # Where only the release waits, all was answered.
    assert code == (0 if await world.valid() == 5 * 20 else 1)


async def test_a_lease_that_cannot_be_extended_is_said_once(serve, start, pool, database):
    """While an account waits for a lock under a lease that cannot be extended."""
    world = await serve()
    ids = {n: await world.add_account(f"account-{n}", videos=2) for n in (6, 7, 8)}
    await carry_covers(world)
    await on_update(pool, RENEWAL_RAISES)
    async with held(database, ids[7][0]):
        daemon = await start(world, lease_seconds=2, request_timeout_seconds=0.5)
        refused = await daemon.until_event("account.refused")
        assert (refused["open_id"], refused["at"]) == ("account-7", "renewal")
        await until(monotonic() + 4)
        assert len(daemon.events("account.refused")) == 1
        assert daemon.events("loop.failed") == []
    await drop(pool)
    await world.until_valid(6)
    await daemon.stopped()


async def test_leases_are_extended_beside_many_that_wait(pool, database):
    """In a few rounds the good ones are; each round is short, and says whom it found."""
    for number in range(30):
        await store(pool, f"{'a' if number % 10 < 8 else 'b'}-{number:02}", 1)
    claimer, claims = replica(pool), []
    while some := await claimer.claim(60):
        claims += some
    assert len(claims) == 30
    await profiles(pool)
    await on_update(pool, SOME_WAIT)
    left, found = list(claims), []
    async with profile_held(database):
        while any(claim.open_id.startswith("b") for claim in left):
            begun = monotonic()
            before = len(found)
            lasts = await replica(pool, lease=100).extend(left, lambda one, _: found.append(one))
            took = monotonic() - begun
            left = [
                claim
                for claim, seconds in zip(left, lasts, strict=True)
                if seconds is None and claim not in found
            ]
            assert len(found) > before
            # Unsplit after a second; all of 24 would wait for 6 s.
            assert took < 5
    assert all(claim.open_id.startswith("a") for claim in found)


async def test_splitting_ends_after_a_time_and_all_parts_had_their_try():
    """What fails late is left out as it is; who does not fail is done all the same."""
    now = [0.0]

    async def unit(items):
        await asyncio.sleep(0)
        if any(item < 32 for item in items):
            now[0] += 0.2
            raise parts.DatabaseBusy("lock")
        return items

    refused = []
    rows = await in_parts(
        range(64), unit, lambda item, _: refused.append(item), 1.0, lambda: now[0]
    )
    assert list(rows) == list(range(32, 64))
    assert refused
    assert now[0] < 4
