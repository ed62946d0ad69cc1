"""/metrics of a real daemon, as Prometheus reads it."""

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import eventually, free_port


async def scraped(port):
    """The metrics by name."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        assert response.status == 200
        text = await response.text()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family, label):
    return {sample.labels[label]: sample.value for sample in family.samples}


async def test_the_fleet_is_counted(serve, start):
    """Videos by state, as the database has them."""
    world = await serve()
    await world.add_account("ana", videos=30)
    port = free_port()
    await start(world, http_listen=f"127.0.0.1:{port}", poll_seconds=0.2)
    await world.until_valid(30)

    async def counted():
        families = await scraped(port)
        return values(families["refresher_videos"], "state").get("valid") == 30

    await eventually(counted, "30 valid covers in /metrics")


async def test_metrics_are_served_while_the_database_is_away(start):
    """Without what only the database knows."""
    port = free_port()
    daemon = await start(
        database_url=f"postgresql://127.0.0.1:{free_port()}/x", http_listen=f"127.0.0.1:{port}"
    )
    await daemon.until_event("database.lost")
    assert "refresher_videos" not in await scraped(port)
