"""The daemon as a process, over real HTTP and real PostgreSQL."""

import asyncio
import re
import signal
from collections import Counter
from datetime import timedelta
from time import monotonic

import aiohttp
import pytest

from tests.conftest import administer, eventually, free_port, until, waits_for_a_lock


def answered(world):
    """The IDs that the emulator has answered with a cover, or left out."""
    return {
        video_id
        for arrival in world.emulator.record
        if arrival.error_code == "ok"
        for video_id in arrival.video_ids
    }


async def state_of(pool, open_id):
    return await pool.fetchval("SELECT state FROM refresher.accounts WHERE open_id = $1", open_id)


async def test_new_videos_become_valid_with_the_least_requests(serve, start):
    """5,000 new videos of 50 accounts take 250 requests; then nothing until something is due."""
    world = await serve()
    for number in range(50):
        await world.add_account(f"account-{number}", videos=100)
    daemon = await start(world, poll_seconds=0.2)
    await world.until_valid(5000)
    await world.until_no_leases()
    assert 250 <= len(world.emulator.record) <= 255
    assert [arrival for arrival in world.emulator.record if arrival.breach] == []
    asked = Counter(video for arrival in world.emulator.record for video in arrival.video_ids)
    assert len(asked) == 5000
    sent = len(world.emulator.record)
    # Several polls, shown by an account of its own that is due later than all this.
    await world.add_account("last", videos=1)
    await world.until_valid(5001)
    assert len(world.emulator.record) == sent + 1
    assert await daemon.stopped() == 0


async def test_the_stored_url_is_what_the_api_sent(serve, start, pool):
    """Byte for byte, %2F and all: the covers' server accepts its own signature."""
    world = await serve()
    await world.add_account("ana", videos=20)
    await start(world)
    await world.until_valid(20)
    rows = await pool.fetch(
        "SELECT cover_image_url AS url, extract(epoch FROM cover_expires_at)::int AS expiry"
        " FROM refresher.videos"
    )
    async with aiohttp.ClientSession() as session:
        for row in rows:
            assert "%2F" in row["url"]
            assert int(re.search(r"x-expires=(\d+)", row["url"])[1]) == row["expiry"]
            async with session.get(aiohttp.client.URL(row["url"], encoded=True)) as response:
                assert response.status == 200


async def test_a_video_inserted_by_another_program_is_asked_for_at_once(serve, start):
    """Within one poll, and on an account that was asleep."""
    world = await serve()
    await world.add_account("ana", videos=1)
    await start(world, poll_seconds=0.2)
    await world.until_valid(1)
    await world.until_no_leases()
    await world.add_videos("ana", 1)
    await world.until_valid(2)


@pytest.mark.long
async def test_videos_inserted_piecemeal_settle_in_full_chunks(serve, start, pool):
    """Five at a time, they share chunks after two lifetimes, and no cover ever expires."""
    lifetime = 12
    world = await serve(cover_ttl=lifetime)
    await world.add_account("ana")
    await start(world, poll_seconds=0.2)
    begun = monotonic()
    for group in range(1, 13):
        await world.add_videos("ana", 5)
        await world.until_valid(5 * group)

    async def lifetimes_passed():
        expired = await pool.fetchval(
            "SELECT count(*) FROM refresher.videos WHERE cover_expires_at <= now()"
        )
        assert expired == 0
        return monotonic() > begun + 2.75 * lifetime

    await eventually(lifetimes_passed, "most of the third lifetime")
    settled = [
        len(arrival.video_ids)
        for arrival in world.emulator.record
        if arrival.at > begun + 2 * lifetime
    ]
    assert len(settled) >= 3
    assert sum(settled) / len(settled) / 20 >= 0.95


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_in_mid_run_drains(serve, start, pool, number):
    """Exit 0; every answered ID is written, no lease is left, the rest stays due."""
    world = await serve(latency_seconds=0.2)
    for account in range(10):
        await world.add_account(f"account-{account}", videos=400)
    daemon = await start(world, concurrency=8)
    await world.until_valid(100)
    assert await daemon.stopped(number) == 0
    stored = await pool.fetch(
        "SELECT video_id FROM refresher.videos WHERE cover_image_url IS NOT NULL"
    )
    assert {row["video_id"] for row in stored} == answered(world)
    assert 0 < len(stored) < 4000
    leases = "SELECT count(*) FROM refresher.accounts WHERE lease_expires_at IS NOT NULL"
    assert await pool.fetchval(leases) == 0
    assert daemon.events("daemon.stopped")[0]["abandoned_accounts"] == 0


async def test_a_second_signal_exits_at_once(serve, start):
    """Whoever does not want to wait for the drain need not."""
    world = await serve(timeout_share=1.0)
    await world.add_account("ana", videos=1)
    daemon = await start(world)
    await eventually(lambda: _length(world.emulator.record), "a request")
    daemon.process.send_signal(signal.SIGTERM)
    await daemon.until_event("daemon.signaled")
    assert await daemon.stopped() == 128 + signal.SIGTERM


async def _length(items):
    return len(items)


async def test_after_kill_9_another_replica_finishes(serve, start):
    """The dead replica's leases run out and its accounts go on elsewhere."""
    world = await serve(latency_seconds=0.2)
    for account in range(10):
        await world.add_account(f"account-{account}", videos=100)
    settings = {"lease_seconds": 3, "concurrency": 4}
    first = await start(world, **settings)
    await world.until_valid(100)
    await first.stopped(signal.SIGKILL)
    assert await world.valid() < 1000
    await start(world, **settings)
    await world.until_valid(1000)


async def test_a_refused_token_costs_one_request_and_revives_by_update(serve, start, pool):
    """401 parks with the log_id in the log; the other accounts go on; new tokens end it."""
    world = await serve()
    await world.add_account("ana", videos=60)
    await world.add_account("ben", videos=20)
    world.emulator.revoke_access_token("ana")
    daemon = await start(world)
    parked = await daemon.until_event("account.parked")
    await world.until_valid(20)
    assert (parked["open_id"], parked["state"]) == ("ana", "needs_reauthorization")
    assert parked["log_id"]
    assert await state_of(pool, "ana") == "needs_reauthorization"
    refused = Counter(arrival.status for arrival in world.emulator.record)[401]
    assert refused <= 3
    world.emulator.add_account("ana", "act.again")
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = 'act.again' WHERE open_id = 'ana'"
    )
    await world.until_valid(80)
    assert Counter(arrival.status for arrival in world.emulator.record)[401] == refused


@pytest.mark.parametrize("token", [None, "", "two\nlines"], ids=["none", "empty", "lines"])
async def test_a_token_that_cannot_be_sent_parks_without_a_request(serve, start, pool, token):
    """It is no different from a refused one, and costs nothing."""
    world = await serve()
    await world.add_account("ana", videos=1)
    await pool.execute("UPDATE refresher.accounts SET access_token = $1", token)
    daemon = await start(world)
    assert (await daemon.until_event("account.parked"))["reason"] == "no_usable_access_token"
    assert await daemon.stopped() == 0
    assert len(world.emulator.record) == 0


async def test_a_lost_scope_parks(serve, start, pool):
    """The account needs the scope, not new tokens, and the state says so."""
    world = await serve()
    await world.add_account("ana", videos=1)
    world.emulator.add_account("ana", "act.less", scope="user.info.basic")
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.less'")
    daemon = await start(world)
    assert (await daemon.until_event("account.parked"))["state"] == "needs_scope"


async def test_a_429_pauses_the_account_in_its_row(serve, start, pool):
    """All replicas see the pause; nothing is lost, and the account comes back by itself."""
    world = await serve(throttled_share=1.0)
    await world.add_account("ana", videos=20)
    daemon = await start(world)
    throttled = await daemon.until_event("account.throttled")
    assert throttled["pause_seconds"] > 0
    row = await pool.fetchrow(
        "SELECT next_slot_at > now() AS paused, state FROM refresher.accounts"
    )
    assert (row["paused"], row["state"]) == (True, "active")
    world.emulator.options = type(world.emulator.options)()
    await world.until_valid(20)


@pytest.mark.parametrize("fault", ["failed_share", "malformed_share", "timeout_share"])
async def test_failures_are_tried_again(serve, start, fault):
    """5xx, malformed bodies and time-outs back off and cost no cover."""
    world = await serve(**{fault: 0.5}, seed=4)
    for account in range(4):
        await world.add_account(f"account-{account}", videos=60)
    daemon = await start(world, request_timeout_seconds=0.5)
    await daemon.until_event("chunk.failed")
    world.emulator.options = type(world.emulator.options)()
    await world.until_valid(240)


async def test_a_missing_video_becomes_gone(serve, start, pool):
    """Left out again and again, it is asked ever more rarely; the others are not disturbed."""
    world = await serve()
    await world.add_account("ana", videos=5)
    await world.add_videos("ana", 1, missing=True)
    await start(world, missing_limit=2)
    await world.until_valid(5)
    await world.until_no_leases()
    missing = "SELECT * FROM refresher.videos WHERE missing_since IS NOT NULL"
    row = await pool.fetchrow(missing)
    assert (row["misses"], row["gone_at"], row["cover_image_url"]) == (1, None, None)
    await pool.execute("UPDATE refresher.videos SET due_at = now() WHERE missing_since IS NOT NULL")
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")

    async def gone():
        return (await pool.fetchrow(missing))["gone_at"]

    await eventually(gone, "a gone video")


async def test_an_unusable_cover_rejects_that_video_alone(serve, start, pool):
    """The rest of the chunk is stored, what was stored before stays."""
    world = await serve(cover_ttl=6)
    ids = await world.add_account("ana", videos=3)
    daemon = await start(world)
    await world.until_valid(3)
    before = await pool.fetchval(
        "SELECT cover_image_url FROM refresher.videos WHERE video_id = $1", ids[0]
    )
    good = f"{world.base_url}/c?x-expires=4000000000"

    def spoilt(query):
        covers = [{"id": i, "cover_image_url": good} for i in query.video_ids if i != ids[0]]
        answer = {
            "data": {"videos": [{"id": ids[0], "cover_image_url": "no url"}, *covers]},
            "error": {"code": "ok", "message": "", "log_id": "x"},
        }
        return aiohttp.web.json_response(answer)

    world.emulator.answer_with = spoilt
    rejected = await daemon.until_event("video.rejected")
    assert rejected["video_id"] == ids[0]

    async def others_moved():
        return await pool.fetchval(
            "SELECT count(*) = 2 FROM refresher.videos WHERE cover_image_url = $1", good
        )

    await eventually(others_moved, "the other two")
    kept = "SELECT cover_image_url FROM refresher.videos WHERE video_id = $1"
    assert await pool.fetchval(kept, ids[0]) == before


async def test_terminated_backends_are_outlasted(serve, start, pool):
    """The database throws everybody out in mid-run: the same process finishes the work."""
    world = await serve(latency_seconds=0.1)
    for account in range(10):
        await world.add_account(f"account-{account}", videos=200)
    daemon = await start(world, concurrency=4, lease_seconds=5)
    await world.until_valid(200)
    await pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        # Of this test alone: others have daemons on the same server.
        " WHERE application_name = 'refresher' AND datname = current_database()"
    )
    await world.until_valid(2000)
    assert await daemon.stopped() == 0


async def test_a_database_that_is_away_is_waited_for(start):
    """The daemon says so, lives, is not ready, and ends cleanly when told to."""
    port = free_port()
    daemon = await start(
        database_url=f"postgresql://nobody:pass-word-of-the-tests@127.0.0.1:{free_port()}/x",
        http_listen=f"127.0.0.1:{port}",
    )
    await daemon.until_event("database.lost")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/livez") as response:
            assert response.status == 200
        async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
            assert response.status == 503
    assert await daemon.stopped() == 0


async def test_a_ready_daemon_says_so(serve, start):
    """/readyz answers 200 when the database is reachable and migrated."""
    port = free_port()
    daemon = await start(await serve(), http_listen=f"127.0.0.1:{port}")
    await daemon.until_event("operations.served")
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/readyz") as response,
    ):
        assert (response.status, await response.text()) == (200, "ok\n")


async def test_a_refused_id_holds_no_other_back(serve, start, pool):
    """One poison ID among 500: the others are fresh, and from then on it is asked for alone."""
    world = await serve()
    ids = await world.add_account("ana", videos=500)
    poison = ids[250]
    world.emulator.refuse_video(poison)
    await start(world, poll_seconds=0.2)
    await world.until_valid(499)
    await world.until_no_leases()
    assert len(world.emulator.record) <= 25 + 7
    row = await pool.fetchrow(
        "SELECT *, due_at - now() AS wait FROM refresher.videos WHERE video_id = $1", poison
    )
    assert (row["refusal"], row["cover_image_url"]) == ("invalid_params", None)
    assert row["wait"] > timedelta(minutes=59)
    sent = len(world.emulator.record)
    # All of the account's waits are over at once.
    await pool.execute("UPDATE refresher.videos SET due_at = now(), cover_image_url = NULL")
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    await world.until_valid(499)

    async def asked_again():
        return len(world.emulator.record) == sent + 26

    await eventually(asked_again, "25 full requests and one for the refused ID")
    with_poison = [r.video_ids for r in list(world.emulator.record)[sent:] if poison in r.video_ids]
    assert with_poison == [(poison,)]
    await world.until_no_leases()
    world.emulator.accept_video(poison)
    await pool.execute("UPDATE refresher.videos SET due_at = now() WHERE video_id = $1", poison)
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    await world.until_valid(500)
    assert await pool.fetchval("SELECT count(refusal) FROM refresher.videos") == 0


async def test_a_few_failures_do_not_slow_a_big_account_down(serve, start, pool):
    """Where some chunks are answered, the account goes on at its pace."""
    world = await serve(failed_share=0.1)
    await world.add_account("ana", videos=2000)
    await start(world, poll_seconds=0.2, rate_limit_per_token=6000)
    await world.until_valid(1900)
    assert await pool.fetchval("SELECT failures FROM refresher.accounts") <= 1


async def test_a_slow_api_does_not_waste_claims(serve, start):
    """What cannot be sent in time is left unclaimed rather than given up."""
    world = await serve(latency_seconds=0.8)
    for account in range(300):
        await world.add_account(f"account-{account}", videos=1)
    daemon = await start(world, concurrency=8)
    await world.until_valid(50)
    assert await daemon.stopped() == 0
    worked = daemon.events("account.refreshed")
    assert sum(event["postponed"] for event in worked) < len(worked) / 2


async def test_a_locked_video_stops_nobody_else(serve, start, pool):
    """An application's open transaction costs its own row the refresh, no other."""
    world = await serve()
    ids = await world.add_account("ana", videos=40)
    await world.add_account("ben", videos=40)
    async with pool.acquire() as application, application.transaction():
        await application.execute(
            "SELECT FROM refresher.videos WHERE video_id = $1 FOR UPDATE", ids[0]
        )
        daemon = await start(world)
        await world.until_valid(79)
        await daemon.until_event("chunk.unsaved", count=2)
    await world.until_valid(80)
    # Three chunks, and one for each of a few tries, five seconds and more apart.
    assert len(world.emulator.record) <= 8
    assert daemon.events("database.lost") == []


async def test_a_claim_that_hangs_does_not_hold_up_the_stop(serve, start, pool):
    """SIGTERM while somebody has locked the table: exit 0 all the same."""
    world = await serve()
    await world.add_account("ana", videos=1)
    daemon = await start(world, shutdown_grace_seconds=3)
    await world.until_valid(1)
    await world.until_no_leases()
    async with pool.acquire() as application, application.transaction():
        await application.execute("LOCK TABLE refresher.accounts")
        await eventually(lambda: waits_for_a_lock(pool), "a waiting claim")
        assert await asyncio.wait_for(daemon.stopped(), 20) == 0


async def test_results_outlast_an_outage_and_are_not_asked_for_again(serve, start, server, pool):
    """What was answered before the database went away is written first when it is back."""
    # Long enough for the outage to come first, short enough for the lease.
    world = await serve(latency_seconds=1.2)
    ids = await world.add_account("ana", videos=100)
    await start(world, lease_seconds=3)
    await eventually(lambda: _length(world.emulator.record), "a request")
    name = await pool.fetchval("SELECT current_database()")
    await administer(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    throw_out = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND application_name = 'refresher'"
    )
    await administer(server, throw_out)
    await until(monotonic() + 5)
    await administer(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await world.until_valid(100)
    asked = Counter(video for arrival in world.emulator.record for video in arrival.video_ids)
    assert asked == Counter(ids)


async def test_the_api_away_is_no_harm(serve, start, pool):
    """Nobody answers at the base URL: back-off, nothing stored is touched."""
    world = await serve()
    await world.add_account("ana", videos=1)
    daemon = await start(tiktok_base_url=f"http://127.0.0.1:{free_port()}")
    failed = await daemon.until_event("chunk.failed")
    assert failed["code"] == "connection_failed"
    assert await state_of(pool, "ana") == "active"
    assert await asyncio.wait_for(daemon.stopped(), 30) == 0
