"""Serves the operations endpoint, with /livez and /readyz."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

from refresher.events import OPERATIONS_SERVED
from refresher.logs import emit

if TYPE_CHECKING:
    from aiohttp import web

ANSWER_SECONDS: Final = 1.0


@asynccontextmanager
async def served(
    address: str | None, ready: Callable[[], Awaitable[str | None]]
) -> AsyncIterator[None]:
    """Serve /livez and /readyz on host:port; without an address nothing is served.

    The loop that does the work answers /livez, so only a stuck loop fails it. `ready` says what is
    missing, None if nothing is. Raises OSError for an address that we cannot listen on.
    """
    if address is None:
        yield
        return

    # Loaded only if something is served: it takes as long as the database driver.
    from aiohttp import web  # noqa: PLC0415

    runner = web.AppRunner(_application(ready), access_log=None)
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


def _application(ready: Callable[[], Awaitable[str | None]]) -> "web.Application":
    from aiohttp import web  # noqa: PLC0415

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    one_at_a_time = asyncio.Lock()
    answers: list[tuple[float, str | None]] = []

    async def readyz(_request: web.Request) -> web.Response:
        # One check at a time, valid for a second: probes must not crowd a slow database.
        async with one_at_a_time:
            if not answers or monotonic() > answers[-1][0] + ANSWER_SECONDS:
                answers[:] = [(monotonic(), await ready())]
        missing = answers[-1][1]
        return web.Response(text=f"{missing or 'ok'}\n", status=503 if missing else 200)

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz)])
    return app
