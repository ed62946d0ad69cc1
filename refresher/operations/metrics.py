"""The page at /metrics, in the text formats of Prometheus."""

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.aiohttp import make_aiohttp_handler

from refresher.operations.fleet_metrics import FleetCollector
from refresher.operations.replica_metrics import ReplicaCollector
from refresher.operations.server import Sources


def metrics_handler(sources: Sources) -> Handler:
    """Answers with the metrics, without those of the fleet if the database is away for long.

    A reading of the database is waited for, but only for a short time.
    """
    registry = CollectorRegistry()
    registry.register(FleetCollector(sources.fleet, sources.clock))
    registry.register(ReplicaCollector(sources))
    ProcessCollector(registry=registry)
    answer = make_aiohttp_handler(registry)

    async def metrics(request: web.Request) -> web.StreamResponse:
        await sources.fleet.latest()
        return await answer(request)

    return metrics
