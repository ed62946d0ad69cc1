"""What the operations endpoint serves of the parts. Loaded only where something is served."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Final

from refresher.assembly import App
from refresher.domain.quota import Demand
from refresher.operations.checks import Known
from refresher.operations.lists import Lists
from refresher.operations.server import Sources
from refresher.operations.shared import Shared
from refresher.postgres.details import Details, read_details
from refresher.postgres.snapshot import read_snapshot

#: For how long the details on the status page are given out before they are read again.
DETAILS_SECONDS: Final = 20.0
#: And what the stored covers need of the quota, which changes slowly.
DEMAND_SECONDS: Final = 120.0


def sources(app: App, ready: Callable[[], Awaitable[str | None]]) -> Sources:
    """What the operations endpoint serves; `ready` says what is missing, None if nothing is."""
    # What operators read takes one connection at a time: the others are the work's.
    reads = asyncio.Lock()
    return Sources(
        ready=ready,
        fleet=Shared(partial(read_snapshot, app.pool), monotonic, turn=reads),
        meter=app.meter,
        hosts=app.hosts,
        stats=app.refresher.stats,
        settings=app.settings,
        version=app.upkeep.version,
        clock=monotonic,
        details=Shared(
            partial(_read_details, app), monotonic, turn=reads, fresh_seconds=DETAILS_SECONDS
        ),
        demand=Shared(
            partial(_read_demand, app),
            monotonic,
            turn=reads,
            fresh_seconds=DEMAND_SECONDS,
        ),
        lists=Lists(app.pool, monotonic, reads, managed=app.settings.renews_tokens),
        known=_known(app),
    )


async def _read_demand(app: App) -> Demand | None:
    # As the page's drawing: loaded by the first one who looks.
    from refresher.postgres.vitals import read_stored_demand  # noqa: PLC0415

    return await read_stored_demand(app.pool, app.settings.due_policy, app.settings.pace)


async def _read_details(app: App) -> Details:
    settings = app.settings
    return await read_details(app.pool, settings.pace, managed=settings.renews_tokens)


def _known(app: App) -> Known:
    settings = app.settings
    return Known(
        replica=app.replica,
        lead_seconds=settings.lead_seconds,
        limit_per_token=settings.rate_limit_per_token,
        limit_per_app=settings.rate_limit_per_app,
        lacks_credentials=settings.lacks_credentials,
        fingerprint=app.upkeep.fingerprint,
    )
