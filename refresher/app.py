"""Starts the parts, and stops them in order."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Final

from refresher import events
from refresher.assembly import CLOSING_SECONDS, App, assembled
from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.meter import Stats
from refresher.domain.model import OpenId
from refresher.flow.stop import cancelled
from refresher.logs import emit
from refresher.postgres.connector import ignored_parameters
from refresher.postgres.database import (
    CONNECTIONS,
    Pool,
    SchemaNotMigratedError,
    check_migrated,
)
from refresher.postgres.failures import DatabaseRefusedError
from refresher.postgres.listening import WAKE_CHANNEL, Listener
from refresher.postgres.naming import named
from refresher.postgres.outbox import switch_on
from refresher.postgres.replicas import sign_off
from refresher.postgres.role import check_role, connection_limit
from refresher.postgres.sealing import check_readable
from refresher.postgres.status import any_due, any_left, count_due, read_now, read_paused_since
from refresher.service_manager import ServiceManager
from refresher.settings import Settings
from refresher.upkeep import SUMMARY_SECONDS, begin

READY_SECONDS: Final = 2.0
#: `once` leaves an account alone that has failed so often in a row.
ONCE_FAILURES: Final = 3
#: And gives up when the API has been down for so long.
ONCE_AWAY_SECONDS: Final = 15.0
#: A turn of the claims takes less, waits for a poll aside: statements and pauses have their ends.
LONGEST_TURN_SECONDS: Final = 120.0


class EverythingPausedError(Exception):
    """An operator has paused everything."""

    def __init__(self, since: datetime) -> None:
        at = since.isoformat(sep=" ", timespec="seconds")
        super().__init__(f"everything is paused since {at}: refresher resume --all goes on")


async def run(settings: Settings, replica: str) -> None:
    """The daemon: until SIGTERM or SIGINT.

    A database that is away is waited for. Raises `SchemaNotMigratedError`, `DatabaseRefusedError`,
    and OSError for an operations address that cannot be had.
    """
    started = asyncio.Event()
    async with assembled(settings, replica) as app, _managed(app, started):
        stop_on_signals(app)
        _warn_of_ignored(settings)
        async with _served(app):
            try:
                await app.outage.outlast(
                    lambda: _check_database(app), app.stop, fatal=(DatabaseRefusedError,)
                )
            except DatabaseRefusedError:
                raise
            except DatabaseUnavailable:
                emit(events.DAEMON_STOPPED, abandoned_accounts=0)
                return
            emit(
                events.DAEMON_STARTED,
                version=app.upkeep.version,
                base_url=settings.tiktok_base_url,
                limit_per_minute=settings.rate_limit_per_token,
                app_limit_per_minute=settings.rate_limit_per_app or None,
                lead_seconds=settings.lead_seconds,
            )
            _warn_of_tokens(app)
            if webhooks := app.upkeep.webhooks:
                emit(events.WEBHOOKS_ENABLED, base_url=webhooks.origin)
            started.set()
            await work(app)


@asynccontextmanager
async def _managed(app: App, started: asyncio.Event) -> AsyncIterator[None]:
    """Meanwhile, the service manager hears how the daemon is."""
    manager = ServiceManager(os.environ, os.getpid())
    manager.waits()

    async def attend() -> None:
        await started.wait()
        since = monotonic()
        await manager.attend(
            lambda: _is_turning(app, since), lambda: _status(app.refresher.stats())
        )

    tasks = [
        asyncio.create_task(_on_first(app.stop, manager.stops)),
        asyncio.create_task(attend()),
    ]
    try:
        yield
    finally:
        await cancelled(tasks)


@asynccontextmanager
async def _served(app: App) -> AsyncIterator[None]:
    """Meanwhile, the operations endpoint is served, if it is wished."""
    address = app.settings.http_listen
    if address is None:
        yield
        return

    # Loaded only if something is served: it takes as long as the database driver.
    from refresher.observed import sources  # noqa: PLC0415
    from refresher.operations.server import served  # noqa: PLC0415

    async with served(address, sources(app, partial(_what_is_missing, app.pool))):
        yield


def _is_turning(app: App, since: float) -> bool:
    """Whether claims go on. A stop ends them, and its own time."""
    claimed_at = max(since, app.meter.turned_at.get("claim", since))
    longest = 2 * app.settings.poll_seconds + LONGEST_TURN_SECONDS
    return app.stop.is_set() or monotonic() - claimed_at < longest


def _status(stats: Stats) -> str:
    if not stats.database_up:
        return "the database is away"
    if not stats.upstream_up:
        return "TikTok is away"
    return f"{stats.in_flight} requests in flight, {stats.asked} videos asked for so far"


async def _check_database(app: App) -> None:
    await check_migrated(app.pool)
    restricted = await check_role(app.pool)
    limit = await connection_limit(app.pool)
    await check_readable(app.pool, app.sealer)
    if app.upkeep.webhooks:
        await switch_on(app.pool)  # before anything is changed that is told once
    if restricted:
        emit(events.ROWS_RESTRICTED, tables=restricted)
    if limit is not None:
        emit(events.CONNECTIONS_LIMITED, limit=limit, wanted=CONNECTIONS)


def _warn_of_ignored(settings: Settings) -> None:
    if settings.ignored:
        emit(events.SETTINGS_IGNORED, variables=settings.ignored)
    if ignored := ignored_parameters(settings.database_url.get_secret_value()):
        emit(events.PARAMETERS_IGNORED, parameters=list(ignored))


def _warn_of_tokens(app: App) -> None:
    if not app.sealer.seals:
        emit(events.TOKENS_UNSEALED, reason="REFRESHER_TOKEN_KEYS is not set")
    if app.settings.lacks_credentials:
        reason = "REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET are not set"
        emit(events.TOKENS_UNMANAGED, reason=reason)


async def work(
    app: App,
    finished: Callable[[], Awaitable[bool]] | None = None,
    summary_seconds: float = SUMMARY_SECONDS,
) -> None:
    """Refresh until stopped or finished, with the ticks, the summary and the audit beside it."""
    gc.freeze()  # what is loaded by now is never garbage
    app.schedule.every(app.settings.poll_seconds, app.refresher.wake)
    tasks = [
        *_notifications(app, bounded=finished is not None),
        *begin(
            app.upkeep,
            app.schedule,
            app.outage,
            summary_seconds=summary_seconds,
            probes=finished is None,  # `once` asks for covers, and is gone
        ),
        asyncio.create_task(_on_first(app.stop, app.refresher.stop)),
    ]
    try:
        with app.schedule.running():
            abandoned = await app.refresher.run(finished)
    finally:
        await cancelled(tasks)
        await _sign_off(app)
    emit(events.DAEMON_STOPPED, abandoned_accounts=abandoned)


def _notifications(app: App, *, bounded: bool) -> list[asyncio.Task[None]]:
    """Hear of accounts, unless the run is bounded, and announce covers, if that is wished."""
    tasks = []
    if not bounded:

        def hear() -> None:
            app.refresher.hear()
            app.upkeep.attachments.told.set()

        tasks.append(
            asyncio.create_task(
                Listener(
                    app.pool,
                    app.upkeep.sessions,
                    hear,
                    partial(_say_whether_heard, named(WAKE_CHANNEL, app.settings.schema)),
                ).run()
            )
        )
    if app.announcer:
        tasks.append(asyncio.create_task(app.announcer.run()))
    return tasks


def _say_whether_heard(channel: str, reason: str | None) -> None:
    if reason is None:
        emit(events.NOTIFICATIONS_RECEIVED, channel=channel)
    else:
        emit(events.NOTIFICATIONS_MISSED, reason=reason)


async def _sign_off(app: App) -> None:
    """Operators see who stopped in order. A database that is away need not know."""
    with suppress(DatabaseUnavailable, TimeoutError):
        async with asyncio.timeout(CLOSING_SECONDS / 2):
            await sign_off(app.pool, app.replica)


class Rest:
    """What is left of the videos that were due when `once` started."""

    def __init__(self, pool: Pool, started: datetime) -> None:
        self._pool = pool
        self._started = started
        self._is_empty = self._is_waited_for = False

    async def is_waited_for(self, given_up: Collection[OpenId]) -> bool:
        """Whether some of it may still be answered; of accounts in `given_up` none is."""
        # Mostly nothing is left, and one scan of all videos says so. It is not repeated while
        # something is waited for.
        if not self._is_waited_for:
            self._is_empty = not await any_due(self._pool, self._started)
        self._is_waited_for = not self._is_empty and await any_left(
            self._pool, self._started, ONCE_FAILURES, given_up
        )
        return self._is_waited_for

    async def count(self) -> int:
        """How many videos it is."""
        return 0 if self._is_empty else await count_due(self._pool, self._started)


async def once(
    settings: Settings, replica: str, on_progress: Callable[[int, int], None] | None
) -> int:
    """Ask for everything due now; the number of due videos that could not be answered.

    `on_progress` hears of videos answered and due; None: nobody looks. Raises
    `DatabaseUnavailable`, as `run`, and `EverythingPausedError`, also if the pause begins meanwhile
    and something is left.
    """
    async with assembled(settings, replica) as app:
        stop_on_signals(app)
        await _check_database(app)
        _refuse_pause(await read_paused_since(app.pool))
        started = await read_now(app.pool)
        due = await count_due(app.pool, started) if on_progress else 0
        rest = Rest(app.pool, started)

        async def finished() -> bool:
            if on_progress:
                on_progress(min(app.refresher.tally.ids, due), due)
            if app.refresher.upstream_away_seconds > ONCE_AWAY_SECONDS:
                return True
            if app.refresher.paused_since:
                return True
            return not await rest.is_waited_for(app.refresher.given_up())

        await work(app, finished)
        left = await rest.count()
        if on_progress:
            on_progress(due - left, due)
        if left:
            _refuse_pause(app.refresher.paused_since)
        return left


def _refuse_pause(since: datetime | None) -> None:
    if since:
        raise EverythingPausedError(since)


def stop_on_signals(app: App) -> None:
    """The first SIGTERM or SIGINT drains, the second exits at once."""

    def on_signal(number: signal.Signals) -> None:
        if app.stop.is_set():
            os._exit(128 + number)
        emit(
            events.DAEMON_SIGNALED,
            signal=number.name,
            grace_seconds=app.settings.shutdown_grace_seconds,
        )
        app.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


async def _on_first(event: asyncio.Event, act: Callable[[], None]) -> None:
    await event.wait()
    act()


async def _what_is_missing(pool: Pool) -> str | None:
    try:
        async with asyncio.timeout(READY_SECONDS):
            await check_migrated(pool)
    except (
        DatabaseUnavailable,
        DatabaseRefusedError,
        SchemaNotMigratedError,
        TimeoutError,
    ) as error:
        return f"database: {error}" if str(error) else "database: no answer in time"
    return None
