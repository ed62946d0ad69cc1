"""TikTok away: few calls meanwhile, everything fresh soon after."""

from time import monotonic

import aiohttp
import pytest

from tests.conftest import eventually, free_port, until


@pytest.mark.long
@pytest.mark.parametrize("mode", ["failed", "cut", "hang"])
async def test_an_outage_costs_few_calls(serve, start, mode):
    """Down for 20 s, 5,000 covers due: nine calls and seven trials at most; fresh 30 s after."""
    world = await serve(latency_seconds=0.02)
    for number in range(50):
        await world.add_account(f"account-{number}", videos=100)
    world.emulator.down = mode
    port = free_port()
    daemon = await start(world, request_timeout_seconds=3, http_listen=f"127.0.0.1:{port}")
    await eventually(lambda: _sent(world), "a request")
    begun = monotonic()
    await until(begun + 20)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/livez") as response,
    ):
        assert response.status == 200
    assert len(world.emulator.record) <= 9 + 7
    world.emulator.down = None
    await world.until_valid(5000, seconds=30)
    assert len(daemon.events("upstream.lost")) == len(daemon.events("upstream.recovered")) == 1
    assert await daemon.stopped() == 0


async def _sent(world):
    return len(world.emulator.record)


@pytest.mark.long
async def test_an_outage_in_full_flight_is_outlasted(serve, start):
    """Down in mid-run, twice: no account is given up, and the daemon says what it saw."""
    world = await serve(latency_seconds=0.05)
    for number in range(40):
        await world.add_account(f"account-{number}", videos=100)
    daemon = await start(world, rate_limit_per_token=0, concurrency=16)
    for valid in (500, 1500):
        await world.until_valid(valid)
        world.emulator.down = "failed"
        await daemon.until_event("upstream.lost", count=1 if valid == 500 else 2)
        world.emulator.down = None
        await daemon.until_event("upstream.recovered", count=1 if valid == 500 else 2)
    await world.until_valid(4000)


async def test_one_account_failing_is_no_outage(serve, start):
    """Requests of one account fail on and on, those of the others are answered all the time."""
    world = await serve()
    await world.add_account("bad", videos=20)
    for number in range(10):
        await world.add_account(f"account-{number}", videos=20)
    error = {"code": "internal_error", "message": "", "log_id": "x"}

    def fail(query):
        if query.open_id != "bad":
            return None
        return aiohttp.web.json_response({"error": error}, status=500)

    world.emulator.answer_with = fail
    daemon = await start(world)
    await world.until_valid(200)
    await daemon.until_event("chunk.failed", count=3)
    assert daemon.events("upstream.lost") == []


async def test_once_does_not_wait_for_an_api_that_is_away(serve, start):
    """Covers due and nobody who answers: exit 1 after a while, not never."""
    world = await serve()
    for number in range(10):
        await world.add_account(f"account-{number}", videos=20)
    world.emulator.down = "cut"
    once = await start(world, command="once")
    assert await once.ended() == 1
