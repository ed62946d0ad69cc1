"""Builds the parts, starts them, and stops them in order."""

import asyncio
import gc
import os
import random
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from time import monotonic
from typing import Final

from refresher import events
from refresher.domain.credentials import AppCredentials
from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.meter import Meter
from refresher.flow.loop import Refresher
from refresher.flow.outage import Outage
from refresher.flow.stop import cancelled
from refresher.flow.terms import Terms
from refresher.flow.wiring import Outside
from refresher.logs import emit
from refresher.operations.lists import Lists
from refresher.operations.server import Sources, served
from refresher.operations.shared import Shared
from refresher.operations.verdicts import Known
from refresher.postgres.accounts import Accounts
from refresher.postgres.connector import ignored_parameters
from refresher.postgres.database import (
    APPLICATION_NAME,
    POOL_SIZE,
    Pool,
    SchemaNotMigratedError,
    check_migrated,
    connected,
)
from refresher.postgres.details import read_details
from refresher.postgres.failures import DatabaseRefusedError
from refresher.postgres.replicas import sign_off
from refresher.postgres.role import check_role, connection_limit
from refresher.postgres.sealing import Sealer, check_readable
from refresher.postgres.snapshot import read_snapshot
from refresher.postgres.status import any_left, count_due, read_now, read_paused_since
from refresher.postgres.tokens import (
    TokenStore,
)
from refresher.postgres.write_back import WriteBack
from refresher.schedule import Schedule
from refresher.settings import Settings, split_keys
from refresher.simulation.plan import DAY_SECONDS, Plan, Ttl
from refresher.tiktok.client import opened
from refresher.upkeep import SUMMARY_SECONDS, Upkeep, begin

#: Kept of the grace time for closing connections.
CLOSING_SECONDS: Final = 1.0
READY_SECONDS: Final = 2.0
#: For how long the details on the status page are given out before they are read again.
DETAILS_SECONDS: Final = 20.0
#: `once` leaves an account alone that has failed so often in a row.
ONCE_FAILURES: Final = 3
#: And gives up when the API has been down for so long.
ONCE_AWAY_SECONDS: Final = 15.0
#: In so long a replica notices that its connection to the database is dead, and connects anew.
NOTICING_SECONDS: Final = 12.0


class EverythingPausedError(Exception):
    """An operator has paused everything."""

    def __init__(self, since: datetime) -> None:
        at = since.isoformat(sep=" ", timespec="seconds")
        super().__init__(f"everything is paused since {at}: refresher resume --all goes on")


@dataclass(frozen=True, slots=True)
class App:
    """The assembled parts that commands drive."""

    settings: Settings
    pool: Pool
    sealer: Sealer
    refresher: Refresher
    upkeep: Upkeep
    schedule: Schedule
    outage: Outage
    meter: Meter
    #: The name of this process, in leases and in the log.
    replica: str
    #: Set by the first signal.
    stop: asyncio.Event


def replica_name() -> str:
    """A name for this process that no other has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def plan_of(settings: Settings, ttl: Ttl, seconds: float) -> Plan:
    """What is simulated under these settings."""
    return Plan(
        policy=settings.due_policy,
        ttl=ttl,
        seconds=seconds,
        pace=settings.pace,
        poll_seconds=settings.poll_seconds,
        chunk_budget=2 * settings.concurrency,
    )


@asynccontextmanager
async def assembled(settings: Settings, replica: str) -> AsyncIterator[App]:
    """The parts, connected to each other; nothing runs yet."""
    database_url = settings.database_url.get_secret_value()
    sealer = Sealer(split_keys(settings.token_keys))
    credentials = settings.app_credentials
    outage, meter = Outage(random.random, monotonic), Meter()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        pool = await enter(connected(database_url, application_name=APPLICATION_NAME))
        tiktok = await enter(opened(settings.tiktok_base_url, settings.concurrency, credentials))
        outside = Outside(
            accounts=_accounts(settings, pool, sealer, replica),
            tokens=_tokens(settings, pool, sealer, credentials),
            write_back=WriteBack(pool),
            upstream=tiktok,
            outage=outage,
            meter=meter,
            chance=random.random,
            clock=monotonic,
        )
        refresher = Refresher(outside, _terms(settings))
        upkeep = Upkeep(
            pool,
            sealer,
            replica,
            version("cover-refresher"),
            tally=lambda: refresher.tally,
            meter=meter,
            paused_since=lambda: refresher.paused_since,
            managed=settings.renews_tokens,
            fingerprint=credentials.fingerprint if credentials else None,
            limit_per_minute=settings.rate_limit_per_token,
            plan=plan_of(settings, "hourly", DAY_SECONDS),
        )
        yield App(
            settings=settings,
            pool=pool,
            sealer=sealer,
            refresher=refresher,
            upkeep=upkeep,
            schedule=Schedule(),
            outage=outage,
            meter=meter,
            replica=replica,
            stop=asyncio.Event(),
        )


def _accounts(settings: Settings, pool: Pool, sealer: Sealer, replica: str) -> Accounts:
    return Accounts(
        pool,
        replica=replica,
        pace=settings.pace,
        managed=settings.renews_tokens,
        sealer=sealer,
    )


def _tokens(
    settings: Settings, pool: Pool, sealer: Sealer, credentials: AppCredentials | None
) -> TokenStore:
    return TokenStore(
        pool,
        sealer,
        unknown_seconds=settings.pace.lease_seconds + NOTICING_SECONDS,
        credentials=credentials.fingerprint if credentials else "",
    )


def _terms(settings: Settings) -> Terms:
    return Terms(
        policy=settings.due_policy,
        concurrency=settings.concurrency,
        request_timeout_seconds=settings.request_timeout_seconds,
        poll_seconds=settings.poll_seconds,
        lease_seconds=settings.pace.lease_seconds,
        grace_seconds=max(0.0, settings.shutdown_grace_seconds - CLOSING_SECONDS),
    )


async def run(settings: Settings, replica: str) -> None:
    """The daemon: until SIGTERM or SIGINT.

    A database that is away is waited for. Raises `SchemaNotMigratedError`, `DatabaseRefusedError`,
    and OSError for an operations address that cannot be had.
    """
    async with assembled(settings, replica) as app:
        stop_on_signals(app)
        _warn_of_ignored(settings)
        async with served(settings.http_listen, _sources(app)):
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
            )
            _warn_of_tokens(app)
            await work(app)


def _sources(app: App) -> Sources:
    return Sources(
        ready=partial(_what_is_missing, app.pool),
        fleet=Shared(partial(read_snapshot, app.pool), monotonic),
        meter=app.meter,
        vitals=app.refresher.vitals,
        settings=app.settings,
        version=app.upkeep.version,
        clock=monotonic,
        details=Shared(partial(read_details, app.pool), monotonic, fresh_seconds=DETAILS_SECONDS),
        lists=Lists(app.pool, monotonic),
        known=_known(app),
    )


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


async def _check_database(app: App) -> None:
    await check_migrated(app.pool)
    restricted = await check_role(app.pool)
    limit = await connection_limit(app.pool)
    await check_readable(app.pool, app.sealer)
    if restricted:
        emit(events.ROWS_RESTRICTED, tables=restricted)
    if limit is not None:
        emit(events.CONNECTIONS_LIMITED, limit=limit, wanted=POOL_SIZE)


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
        *begin(app.upkeep, app.schedule, app.outage, summary_seconds=summary_seconds),
        asyncio.create_task(_on_first(app.stop, app.refresher.stop)),
    ]
    try:
        with app.schedule.running():
            abandoned = await app.refresher.run(finished)
    finally:
        await cancelled(tasks)
        await _sign_off(app)
    emit(events.DAEMON_STOPPED, abandoned_accounts=abandoned)


async def _sign_off(app: App) -> None:
    """Operators see who stopped in order. A database that is away need not know."""
    with suppress(DatabaseUnavailable, TimeoutError):
        async with asyncio.timeout(CLOSING_SECONDS / 2):
            await sign_off(app.pool, app.replica)


async def once(settings: Settings, replica: str, on_progress: Callable[[int, int], None]) -> int:
    """Ask for everything due now; the number of due videos that could not be answered.

    `on_progress` hears of videos answered and due. Raises `DatabaseUnavailable`, as `run`, and
    `EverythingPausedError`, also if the pause begins meanwhile and something is left.
    """
    async with assembled(settings, replica) as app:
        stop_on_signals(app)
        await _check_database(app)
        _refuse_pause(await read_paused_since(app.pool))
        started = await read_now(app.pool)
        due = await count_due(app.pool, started)

        async def finished() -> bool:
            on_progress(min(app.refresher.tally.ids, due), due)
            if app.refresher.upstream_away_seconds > ONCE_AWAY_SECONDS:
                return True
            if app.refresher.paused_since:
                return True
            given_up = app.refresher.given_up()
            return not await any_left(app.pool, started, ONCE_FAILURES, given_up)

        await work(app, finished)
        left = await count_due(app.pool, started)
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
