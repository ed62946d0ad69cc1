"""The simulation held against real runs: the daemon, PostgreSQL and the emulator."""

from collections import defaultdict
from datetime import timedelta
from itertools import pairwise

import pytest

from refresher.domain.due import DuePolicy
from refresher.domain.pacing import Pace
from refresher.postgres.fleet import read_fleet
from refresher.simulation.forecast import forecast
from refresher.simulation.plan import Plan
from tests.conftest import eventually, until

#: Covers are asked for anew after 26 to 28 s. 68 s after the first request all accounts but the
#: largest have been asked three times for everything, and are quiet for ten seconds more.
TTL, LEAD, SPREAD, SECONDS = 36, 8, 2, 68
#: The largest account has 48 chunks, which take nearly 25 s: its limit bites. Whether the last
#: chunk of an account is topped up is chance where others fall due in the same second; accounts
#: with more than one of which the last is not full have a small part in the whole.
LIMIT = 120
SIZES = (960, 110, 100, 60, 60, 45, 40, 40, 25, 20, 20, 19, 13, 11, 7, 5, 3, 2, 1, 1)
POLL, LATENCY = 0.2, 0.2


def plan():
    return Plan(
        policy=DuePolicy(
            lead=timedelta(seconds=LEAD),
            spread=timedelta(seconds=SPREAD),
            fallback_ttl=timedelta(hours=6),
            missing_limit=5,
        ),
        ttl=TTL,
        seconds=SECONDS,
        pace=Pace(limit_per_token=LIMIT, limit_per_app=0, lease_seconds=60),
        poll_seconds=POLL,
        request_seconds=LATENCY,
    )


@pytest.mark.long
async def test_a_real_run_of_the_same_fleet_agrees(serve, start, pool):
    """Requests, videos asked for and chunk fill within 2 %, and no cover dies in either."""
    world = await serve(cover_ttl=TTL, rate_limit_per_token=LIMIT, latency_seconds=LATENCY)
    for number, videos in enumerate(SIZES):
        await world.add_account(f"account-{number}", videos)
    told = forecast(await read_fleet(pool), plan())
    daemon = await start(
        world,
        rate_limit_per_token=LIMIT,
        lead_seconds=LEAD,
        spread_seconds=SPREAD,
        poll_seconds=POLL,
    )
    await eventually(lambda: _first(world), "a request")
    begun = world.emulator.record[0].at
    await until(begun + SECONDS)
    arrivals = [one for one in world.emulator.record if one.at < begun + SECONDS]
    assert daemon.process.returncode is None
    assert {one.error_code for one in arrivals} == {"ok"}
    videos = sum(len(one.video_ids) for one in arrivals)
    assert told.requests.sent == pytest.approx(len(arrivals), rel=0.02)
    assert told.chunk_fill == pytest.approx(videos / len(arrivals) / 20, rel=0.02)
    assert (told.last_valid_share, told.first_death_seconds) == (1, None)
    assert longest_gap(arrivals) < TTL - 1
    assert await world.valid() == sum(SIZES)


async def _first(world):
    return world.emulator.record


def longest_gap(arrivals):
    """Between two requests for the same video; its cover lives up to a second less than its TTL."""
    asked = defaultdict(list)
    for arrival in arrivals:
        for video_id in arrival.video_ids:
            asked[video_id].append(arrival.at)
    assert len(asked) == sum(SIZES)
    return max(later - earlier for times in asked.values() for earlier, later in pairwise(times))
