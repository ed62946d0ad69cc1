"""A few covers are fetched, to see whether they live; where they die early, the lead grows."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest
from structlog.testing import capture_logs
from yarl import URL

from refresher import fetching
from refresher.domain.cover_hosts import CoverHosts, local_origin
from refresher.domain.due import DuePolicy
from refresher.domain.meter import Meter
from refresher.domain.probing import Outcome
from refresher.postgres.probes import name_hosts, read_hosts
from refresher.probing import Probing
from tests.conftest import eventually

#: A cover becomes due 10 to 15 minutes before its expiry.
POLICY = DuePolicy(timedelta(minutes=10), timedelta(minutes=5), timedelta(hours=6), 5)
LEAD = {"lead_seconds": 600, "spread_seconds": 300}
LIFE_SECONDS = 10_800
HOST = "p16-sign-va.tiktokcdn.com"


async def dead(world):
    """How many covers that count as valid are refused."""
    rows = await world.pool.fetch(
        "SELECT cover_image_url FROM refresher.videos WHERE cover_expires_at > now()"
    )
    async with aiohttp.ClientSession() as session:
        answers = [await session.get(URL(row[0], encoded=True)) for row in rows]
    return sum(answer.status != 200 for answer in answers)


async def age(world):
    """Every stored cover has lived for as long as those of `LIFE_SECONDS` with as much left."""
    await world.pool.execute(
        "UPDATE refresher.videos SET refreshed_at = cover_expires_at - $1::interval",
        timedelta(seconds=LIFE_SECONDS),
    )


async def test_the_lead_grows_until_no_cover_is_dead(serve, start):
    """Covers that die 40 minutes early are found, said, brought forward and asked for in time."""
    world = await serve(cover_ttl=2_000, covers_die_early_seconds=2_400)
    options = world.emulator.options
    for n in range(4):
        await world.add_account(f"old-{n}", 5)
    daemon = await start(world, probes_per_hour=0, **LEAD)
    await world.until_valid(20)
    world.emulator.options = replace(options, cover_ttl=LIFE_SECONDS)
    for n in range(4):
        await world.add_account(f"young-{n}", 5)
    await world.until_valid(40)
    await world.until_no_leases()
    await daemon.stopped()
    await age(world)
    assert await dead(world) == 20
    daemon = await start(world, probes_per_hour=3600, **LEAD)
    grown = await daemon.until_event("lead.grown")
    assert 1_900 < grown["early_seconds"] <= 2_000
    assert grown["is_enough"]
    assert grown["lead_seconds"] == pytest.approx(600 + 1.25 * grown["early_seconds"], abs=1)
    # Nobody answers meanwhile by the old lead.
    await world.pool.execute("UPDATE refresher.cover_hosts SET grown_at = now() - interval '1 min'")
    await eventually(lambda: none_is_dead(world), "no dead cover")
    probed = daemon.events("freshness.probed")
    assert sum(one["refused"] for one in probed) >= 3
    assert await daemon.stopped() == 0


async def none_is_dead(world):
    return not await dead(world)
