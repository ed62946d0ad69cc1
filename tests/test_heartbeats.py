"""Each replica says that it runs: in order, killed, frozen, and without the right to say so."""

import asyncio
import signal

import pytest

from refresher.assembly import assembled
from refresher.domain.meter import VIDEO_QUERY
from refresher.domain.model import Release
from refresher.postgres.replicas import beat, seen_replicas, sign_off
from refresher.postgres.snapshot import Kind, read_snapshot
from refresher.settings import read_settings
from tests.conftest import eventually, free_port
from tests.test_status import replica, settle, store


async def names(pool):
    return [one.replica for one in await seen_replicas(pool)]


async def test_a_daemon_is_listed_until_it_stops_in_order(pool, serve, start):
    """With its version, and when TikTok last answered it. One that was killed stays."""
    world = await serve()
    await world.add_account("ana", videos=1)
    daemons = [await start(world) for _ in range(2)]
    started = [await daemon.until_event("daemon.started") for daemon in daemons]
    stays, goes = (event["replica"] for event in started)

    async def both():
        return {stays, goes} <= set(await names(pool))

    await eventually(both, "two replicas")
    assert await daemons[1].stopped() == 0
    await daemons[0].stopped(signal.SIGKILL)
    (left,) = await seen_replicas(pool)
    assert left.replica == stays
    assert left.version == started[0]["version"]
    assert left.started_at <= left.seen_at


async def test_a_beat_tells_progress_and_the_next_one_keeps_it(pool):
    """A replica that was not answered since then keeps the older time."""
    await beat(pool, "a", "1", progressed=False)
    (new,) = await seen_replicas(pool)
    assert new.progress_at is None
    await beat(pool, "a", "1", progressed=True)
    (answered,) = await seen_replicas(pool)
    await beat(pool, "a", "1", progressed=False)
    (idle,) = await seen_replicas(pool)
    assert idle.progress_at == answered.progress_at == answered.seen_at
    assert idle.started_at == new.started_at < answered.seen_at < idle.seen_at


@pytest.mark.parametrize(
    ("share", "outcome"),
    [
        (None, "not_sent"),
        ({"failed_share": 1.0}, "failed"),
        ({}, "ok"),
        ({"throttled_share": 1.0}, "throttled"),
    ],
    ids=["nobody listens", "500", "answers", "429"],
)
async def test_only_an_answer_of_tiktok_is_progress(pool, database, serve, share, outcome):
    """A request that is sent is none, nor is a failed one."""
    world = await serve(**(share or {}))
    await world.add_account("ana", videos=1)
    base_url = f"http://127.0.0.1:{free_port()}" if share is None else world.base_url
    settings = read_settings(database_url=database, tiktok_base_url=base_url)
    async with assembled(settings, "a") as app:

        async def ended():
            return app.meter.requests[VIDEO_QUERY][outcome]

        running = asyncio.create_task(app.refresher.run())
        await eventually(ended, outcome)
        app.refresher.stop()
        await running
        await app.upkeep.beat()
    (seen,) = await seen_replicas(pool)
    assert bool(seen.progress_at) == (outcome in {"ok", "throttled"})


async def test_the_dead_are_forgotten_after_a_day(pool):
    """By the beat of any other replica; to sign off twice does no harm."""
    for name in ("dead", "silent"):
        await beat(pool, name, "1", progressed=False)
    await pool.execute(
        "UPDATE refresher.replicas SET seen_at = now() - CASE replica"
        " WHEN 'dead' THEN interval '25 hours' ELSE interval '23 hours' END"
    )
    assert await names(pool) == ["silent"]
    await beat(pool, "a", "1", progressed=False)
    assert await names(pool) == ["a", "silent"]
    assert await pool.fetchval("SELECT count(*) FROM refresher.replicas") == 2
    for _ in range(2):
        await sign_off(pool, "a")
    assert await names(pool) == ["silent"]


async def test_a_replica_of_an_earlier_version_shows_its_leases(pool):
    """It does not say that it runs."""
    await store(pool, "ana", "dead")
    (claim,) = await replica(pool).claim(10)
    (seen,) = await seen_replicas(pool)
    assert (seen.replica, seen.version, seen.seen_at, seen.leases) == ("a", None, None, 1)
    await replica(pool).release([Release(claim.open_id, claim.lease_epoch)])
    assert await names(pool) == []


async def test_a_snapshot_of_the_fleet(pool):
    """One reading for metrics and page: reasons, consents, the app, replicas."""
    for open_id in ("ana", "ben", "cleo", "dora"):
        await store(pool, open_id, "valid")
    await settle(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token_expires_at = now() + interval '5 days'"
        " WHERE open_id IN ('ben', 'dora')"
    )
    await pool.execute(
        "UPDATE refresher.accounts SET state = 'needs_reauthorization',"
        " state_reason = 'invalid_grant', state_since = '2026-01-02 03:04:05+00'"
        " WHERE open_id = 'ben'"
    )
    await pool.execute(
        "UPDATE refresher.accounts SET isolated_since = '2026-01-01+00',"
        " isolated_reason = 'internal_error, HTTP 500, log_id 2026' WHERE open_id = 'cleo'"
    )
    await pool.execute("UPDATE refresher.app SET rate = 120, rate_lowered_at = now()")
    snapshot = await read_snapshot(pool)
    assert [(kind.state, kind.reason, kind.accounts) for kind in snapshot.kinds] == [
        ("active", None, 2),
        ("isolated", "internal_error", 1),
        ("needs_reauthorization", "invalid_grant", 1),
    ]
    assert snapshot.kinds[0] == Kind("active", None, 2, None)
    assert [kind.first_since.day for kind in snapshot.kinds[1:]] == [1, 2]
    consents = snapshot.consents
    assert (consents.ended, consents.within_3_days, consents.within_14_days) == (0, 0, 1)
    assert consents.within_30_days == 1
    assert consents.next_end > snapshot.taken_at
    assert 120 <= snapshot.app.learned_per_minute < 121
    assert snapshot.app.paused_since is None
    assert snapshot.app.client_refused_at is None
    assert snapshot.summary.videos == 8
    assert snapshot.replicas == []
