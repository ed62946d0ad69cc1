"""The page at /metrics, in the text formats of Prometheus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.aiohttp import make_aiohttp_handler

from refresher.operations.fleet_metrics import FleetCollector
from refresher.operations.replica_metrics import ReplicaCollector
from refresher.operations.server import Sources

#: For how long an answer is given out. It is less than any interval of scraping, so that a server
#: always gets fresh numbers.
MADE_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """To make one takes milliseconds: all who ask for the same within moments get the same."""

    asked: tuple[Sequence[str], str]
    made_at: float
    body: bytes
    headers: Mapping[str, str]


def metrics_handler(sources: Sources) -> Handler:
    """Answers with the metrics, without those of the fleet if the database is away for long.

    A reading of the database is waited for, but only for a short time.
    """
    render = make_aiohttp_handler(_registry(sources), disable_compression=True)
    latest: _Answer | None = None

    async def metrics(request: web.Request) -> web.Response:
        nonlocal latest
        await sources.fleet.latest()
        asked = (request.headers.getall(hdrs.ACCEPT, []), request.query_string)
        now = sources.clock()
        if latest is None or latest.asked != asked or now > latest.made_at + MADE_SECONDS:
            made = cast("web.Response", await render(request))
            latest = _Answer(asked, now, cast("bytes", made.body), made.headers.copy())
        return web.Response(body=latest.body, headers=latest.headers)

    return metrics


def _registry(sources: Sources) -> CollectorRegistry:
    # With the option a scrape that asks for some names gets those of our collectors, too.
    registry = CollectorRegistry(support_collectors_without_names=True)
    registry.register(FleetCollector(sources.fleet, sources.clock))
    registry.register(ReplicaCollector(sources))
    ProcessCollector(registry=registry)
    return registry
