"""Serves the operations endpoint: /livez, /readyz, /metrics and the status page."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final

from aiohttp import web

from refresher.domain.clocks import Clock
from refresher.domain.cover_hosts import CoverHosts
from refresher.domain.meter import Meter, Stats
from refresher.domain.quota import Demand
from refresher.events import OPERATIONS_SERVED
from refresher.logs import emit
from refresher.operations.checks import Known
from refresher.operations.lists import Lists
from refresher.operations.shared import Shared
from refresher.postgres.details import Details
from refresher.postgres.snapshot import Snapshot
from refresher.settings import Settings

ANSWER_SECONDS: Final = 1.0
#: When the daemon stops, an answer that is being sent may take so long.
CLOSING_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Sources:
    """What the answers are made of."""

    #: Says what is missing, None if nothing is.
    ready: Callable[[], Awaitable[str | None]]
    #: The fleet, as the database has it.
    fleet: Shared[Snapshot]
    #: What this replica has counted, and how it is just now.
    meter: Meter
    stats: Callable[[], Stats]
    hosts: CoverHosts
    settings: Settings
    version: str
    #: Of the times in `meter`.
    clock: Clock
    #: What the status page shows beside it.
    details: Shared[Details]
    #: The requests that the stored covers need; None: none is stored.
    demand: Shared[Demand | None]
    lists: Lists
    known: Known


@asynccontextmanager
async def served(address: str, sources: Sources) -> AsyncIterator[None]:
    """Serve the endpoint on host:port.

    The loop that does the work answers /livez, so only a stuck loop fails it. Raises OSError for an
    address that we cannot listen on.
    """
    runner = web.AppRunner(_application(sources), access_log=None, shutdown_timeout=CLOSING_SECONDS)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise OSError(f"REFRESHER_HTTP_LISTEN: {address}: {error.strerror}") from error
        for bound_host, bound_port, *_ in runner.addresses:
            emit(OPERATIONS_SERVED, address=f"{bound_host}:{bound_port}")
        yield
    finally:
        await runner.cleanup()


def _application(sources: Sources) -> web.Application:
    from refresher.operations.metrics import metrics_handler  # noqa: PLC0415
    from refresher.operations.page import install  # noqa: PLC0415

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    one_at_a_time = asyncio.Lock()
    answers: list[tuple[float, str | None]] = []

    async def readyz(_request: web.Request) -> web.Response:
        # One check at a time, valid for a second: checks must not crowd a slow database.
        async with one_at_a_time:
            if not answers or monotonic() > answers[-1][0] + ANSWER_SECONDS:
                answers[:] = [(monotonic(), await sources.ready())]
        missing = answers[-1][1]
        return web.Response(text=f"{missing or 'ok'}\n", status=503 if missing else 200)

    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics_handler(sources)),
        ]
    )
    install(app, sources, monotonic)
    return app
