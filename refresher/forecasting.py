"""A daemon's own forecast: one replica looks ahead for all, and warns of covers that will die."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from refresher import events
from refresher.logs import emit
from refresher.postgres.database import Pool
from refresher.postgres.stored import BRIEF, must_say, read_stored, take_forecast
from refresher.simulation.need import Need
from refresher.simulation.outlook import Prospect, look_at_today
from refresher.simulation.plan import Plan

#: A replica asks so often whether a forecast is due: also soon after its start, as it may have got
#: other settings.
FORECAST_SECONDS: Final = 60.0
#: Replicas share one forecast.
FORECAST_EVERY: Final = timedelta(minutes=14)
RISK_SAID_AGAIN_AFTER: Final = timedelta(hours=1)


async def warn_of_deaths(pool: Pool, plan: Plan, *, managed: bool, fingerprint: str | None) -> None:
    """Say that covers will die, when that begins and then every hour; only if it is our turn.

    `managed` and `fingerprint` are those of `read_stored`. Raises `DatabaseUnavailable`.
    """
    if not await take_forecast(pool, FORECAST_EVERY):
        return
    stored = await read_stored(pool, BRIEF, managed=managed, fingerprint=fingerprint)
    # In a thread, so that requests go on meanwhile; `BRIEF` bounds how long it takes.
    stop = threading.Event()
    try:
        today, need = await asyncio.to_thread(look_at_today, stored, plan, partial(_end_if, stop))
    finally:
        stop.set()
    risk = _risk(today, need)
    if await must_say(pool, risk, again_after=RISK_SAID_AGAIN_AFTER):
        emit(events.FORECAST_AT_RISK, **(risk or {}))


def _end_if(stop: threading.Event, _minutes: int) -> None:
    """A thread cannot be cancelled, and the process would wait for it at its end."""
    if stop.is_set():
        raise InterruptedError


def _risk(today: Prospect, need: Need) -> dict[str, object] | None:
    """The fields of the event; None: no cover will die."""
    if today.first_death_at is None:
        return None
    return {
        "first_death_at": datetime.fromtimestamp(today.first_death_at, UTC).isoformat(),
        "covers": today.most_dead,
        "accounts": today.accounts,
        "valid_share_after_24_hours": today.valid_share_after_24_hours,
        "quota_needed_per_minute": round(need.at_peak, 1),
        "quota_per_minute": today.limit_per_app or None,
        "token_quota_needed_per_minute": round(need.busiest_token, 1),
        "token_quota_per_minute": today.limit_per_token or None,
    }
