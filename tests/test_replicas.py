"""Several replicas over one database: shared work, one limit, no harm from the dead and the paused."""

import signal
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.conftest import eventually, until

LIMIT, SECONDS = 60, 140


def arrivals_of(world):
    """When each token's requests came."""
    arrivals = defaultdict(list)
    for arrival in world.emulator.record:
        arrivals[arrival.open_id].append(arrival.at)
    return arrivals


def within_limit(times, limit):
    return all(later - first > 60 for first, later in zip(times, times[limit:], strict=False))


#: An account's event is logged after its release is committed: another replica may claim it in
#: between. Two that worked it at once would overlap by the seconds that a claim's slots take.
LOGGED_LATER = timedelta(seconds=1)


def spans_of_work(daemons):
    """From when to when each account was worked, by any replica."""
    spans = defaultdict(list)
    for daemon in daemons:
        for event in daemon.events("account.refreshed"):
            ended = datetime.fromisoformat(event["timestamp"])
            begun = ended - timedelta(seconds=event["took_seconds"])
            spans[event["open_id"]].append((begun, ended))
    return spans


def busiest(daemons):
    return max(daemons, key=lambda daemon: len(daemon.events("account.refreshed")))


@pytest.mark.long
async def test_replicas_share_the_quota_through_a_kill_and_a_drain(serve, start):
    """More work than the quota allows: at least 85 % of it is used, and never more than all."""
    world = await serve(rate_limit_per_token=LIMIT, latency_seconds=0.05)
    names = [f"account-{number}" for number in range(6)]
    for name in names:
        await world.add_account(name, videos=4000)
    daemons = [await start(world, rate_limit_per_token=LIMIT) for _ in range(3)]
    await eventually(lambda: _length(world.emulator.record), "a request")
    begun = world.emulator.record[0].at
    await until(begun + SECONDS / 4)
    killed = busiest(daemons)
    await killed.stopped(signal.SIGKILL)
    await until(begun + SECONDS / 2)
    drained = busiest(daemon for daemon in daemons if daemon is not killed)
    assert await drained.stopped() == 0
    await until(begun + SECONDS)
    (last,) = (daemon for daemon in daemons if daemon not in (killed, drained))
    assert await last.stopped() == 0
    assert Counter(arrival.error_code for arrival in world.emulator.record).keys() == {"ok"}
    arrivals = arrivals_of(world)
    assert arrivals.keys() == set(names)
    assert all(within_limit(times, LIMIT) for times in arrivals.values())
    used = sum(at < begun + SECONDS for times in arrivals.values() for at in times)
    assert used >= 0.85 * LIMIT * SECONDS / 60 * len(names)
    assert all(daemon.events("account.refreshed") for daemon in daemons)
    for spans in spans_of_work(daemons).values():
        assert all(one[1] - LOGGED_LATER <= two[0] for one, two in pairwise(sorted(spans)))


async def _length(items):
    return len(items)


async def test_work_that_outlasts_its_lease_keeps_it(serve, start, pool):
    """Answers that take longer than the lease come to good: it is renewed, nobody else takes it."""
    world = await serve(latency_seconds=4)
    ids = await world.add_account("ana", videos=60)
    for _ in range(2):
        await start(world, lease_seconds=2)
    await world.until_valid(60)
    asked = Counter(video for arrival in world.emulator.record for video in arrival.video_ids)
    assert asked == Counter(ids)


async def test_a_process_paused_for_longer_than_its_lease_does_no_harm(serve, start, pool):
    """SIGSTOP in mid-request, another replica takes over, SIGCONT: it writes nothing stale."""
    world = await serve(latency_seconds=0.5)
    for number in range(8):
        await world.add_account(f"account-{number}", videos=100)
    settings = {"lease_seconds": 2, "concurrency": 4}
    paused = await start(world, **settings)
    await world.until_valid(40)
    paused.process.send_signal(signal.SIGSTOP)
    await start(world, **settings)
    await world.until_valid(800)
    await pool.execute(
        "CREATE TABLE stored AS SELECT video_id, cover_expires_at FROM refresher.videos"
    )
    paused.process.send_signal(signal.SIGCONT)
    # It wakes with answers in hand and finds that its leases are others'.
    await paused.until_event("account.abandoned")
    assert await paused.stopped() == 0
    older = (
        "SELECT count(*) FROM stored JOIN refresher.videos AS v USING (video_id)"
        " WHERE v.cover_expires_at < stored.cover_expires_at"
    )
    assert await pool.fetchval(older) == 0
    assert paused.events("account.failed") == []
