"""The page at /metrics, in the text formats of Prometheus."""

from collections.abc import Iterator
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from refresher.operations.shared import Shared
from refresher.postgres.snapshot import Snapshot

#: Numbers of the fleet that are older are left out: a frozen number looks like a good one.
STALE_SECONDS: Final = 60.0


def metrics_handler(fleet: Shared[Snapshot]) -> Handler:
    """Answers with the metrics. It waits a short time for a reading of the database, not longer."""
    registry = CollectorRegistry()
    registry.register(FleetCollector(fleet))
    answer = make_aiohttp_handler(registry)

    async def metrics(request: web.Request) -> web.StreamResponse:
        await fleet.latest()
        return await answer(request)

    return metrics


class FleetCollector(Collector):
    """What all replicas know: each shows the same numbers."""

    def __init__(self, fleet: Shared[Snapshot]) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        reading, age = self._fleet.reading, self._fleet.age_seconds()
        if reading is not None and age is not None and age < STALE_SECONDS:
            yield from _freshness(reading.value)


def _freshness(snapshot: Snapshot) -> Iterator[Metric]:
    summary = snapshot.summary
    videos = GaugeMetricFamily(
        "refresher_videos", "Stored videos by state. Of the fleet: use max().", labels=["state"]
    )
    for state in ("valid", "expired", "uncovered", "unreachable"):
        videos.add_metric([state], getattr(summary, state))
    yield videos
