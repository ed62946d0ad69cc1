"""429s: the pause, the rate that comes down and recovers, and the limit of the whole app."""

from datetime import datetime

import pytest

from refresher.emulator.options import WINDOW_SECONDS, EmulatorOptions
from refresher.flow.app_rate import TELLING_SECONDS
from tests.conftest import eventually, until


async def share_of(pool, open_id):
    return await pool.fetchval(
        "SELECT rate_share FROM refresher.accounts WHERE open_id = $1", open_id
    )


async def test_the_rate_comes_down_to_what_the_token_is_allowed(serve, start, pool):
    """A limit set too high: after the first 429s the account is asked within the real one."""
    world = await serve(rate_limit_per_token=30)
    await world.add_account("ana", videos=2000)
    daemon = await start(world, rate_limit_per_token=600)
    await daemon.until_event("account.throttled", count=2)
    assert await share_of(pool, "ana") < 0.7
    assert (await pool.fetchval("SELECT state FROM refresher.accounts")) == "active"
    row = await pool.fetchrow("SELECT max(misses) AS misses FROM refresher.videos")
    assert row["misses"] == 0


async def test_a_retry_after_is_the_least_pause(serve, start, pool):
    """The reply's own wish counts where it gives one."""
    world = await serve(throttled_share=1.0, retry_after_seconds=120)
    await world.add_account("ana", videos=20)
    daemon = await start(world)
    throttled = await daemon.until_event("account.throttled")
    assert throttled["pause_seconds"] >= 120


async def test_a_429_hides_no_401(serve, start, pool):
    """Throttled and then refused: the account is parked all the same."""
    world = await serve(throttled_share=1.0)
    await world.add_account("ana", videos=20)
    daemon = await start(world)
    await daemon.until_event("account.throttled")
    world.emulator.options = EmulatorOptions()
    world.emulator.revoke_access_token("ana")
    parked = await daemon.until_event("account.parked")
    assert parked["state"] == "needs_reauthorization"


@pytest.mark.long
async def test_a_limit_of_the_app_is_found_by_all_replicas_together(serve, start, pool):
    """Nobody configured it: in one window it is known to a tenth, and no account pays for it."""
    limit = 120
    world = await serve(rate_limit_per_app=limit, latency_seconds=0.02)
    for number in range(30):
        await world.add_account(f"account-{number}", videos=400)
    daemons = [await start(world) for _ in range(3)]

    async def found():
        rate = await pool.fetchval("SELECT rate FROM refresher.app")
        return rate and 0.9 * limit <= rate <= 1.1 * limit

    await eventually(found, "a rate within a tenth of the limit")
    # Until the first burst has left the window nothing is answered, whatever the daemons do.
    answered = [arrival.at for arrival in world.emulator.record if arrival.error_code == "ok"]
    burst_left = answered[limit - 1] + WINDOW_SECONDS
    await until(burst_left)
    paused = account_pauses(daemons)

    def late():
        return [arrival for arrival in world.emulator.record if arrival.at > burst_left]

    async def seen():
        return len(late()) >= 40

    await eventually(seen, "40 requests after the first burst", WINDOW_SECONDS)
    outcomes = [arrival.error_code for arrival in late()]
    assert outcomes.count("rate_limit_exceeded") <= len(outcomes) / 10
    assert account_pauses(daemons) == paused
    said = [event for daemon in daemons for event in daemon.events("app.throttled")]
    assert any(0.9 * limit <= event["answered"] <= 1.1 * limit for event in said)


async def test_a_count_that_fails_is_said_now_and_then(serve, start, pool):
    """Not four times a second while 429s come in; the accounts are refreshed all the same."""
    await pool.execute(
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE 'no count today'; END$$;"
        "CREATE TRIGGER fail BEFORE UPDATE OF answers ON refresher.app"
        " EXECUTE FUNCTION public.fail()"
    )
    world = await serve(throttled_share=0.5)
    for number in range(30):
        await world.add_account(f"account-{number}", videos=100)
    daemon = await start(world)
    await daemon.until_event("loop.failed", count=3)
    said = daemon.events("loop.failed")
    assert {event["loop"] for event in said} == {"keep app limit"}
    first, *_, last = [datetime.fromisoformat(str(event["timestamp"])) for event in said]
    assert (last - first).total_seconds() > 0.99 * TELLING_SECONDS * (len(said) - 1)
    assert daemon.events("account.refreshed")


def account_pauses(daemons):
    return sum(len(daemon.events("account.throttled")) for daemon in daemons)
