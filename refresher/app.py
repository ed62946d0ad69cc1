"""Composition root: pool, session, loops, signals, and the order in which they stop."""

import asyncio
import gc
import os
import random
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from math import inf
from time import monotonic
from typing import Final

from refresher import events
from refresher.domain.due import DuePolicy
from refresher.domain.errors import DatabaseUnavailable, is_away
from refresher.domain.model import CHUNK_SIZE, OpenId
from refresher.flow.loop import Refresher, Terms
from refresher.flow.outage import Outage
from refresher.flow.stop import cancelled
from refresher.flow.tokens import TokenKeeper
from refresher.flow.work import Tally
from refresher.logs import emit
from refresher.operations import served
from refresher.postgres.audit import AUDIT_SECONDS, audit_step
from refresher.postgres.claims import Claims
from refresher.postgres.connector import ignored_parameters
from refresher.postgres.database import (
    APPLICATION_NAME,
    POOL_SIZE,
    Pool,
    SchemaNotMigratedError,
    check_migrated,
    connected,
)
from refresher.postgres.failures import DatabaseRefusedError, first_line
from refresher.postgres.role import check_role, connection_limit
from refresher.postgres.sealing import Sealer, check_readable, seal_all
from refresher.postgres.status import Summary, any_left, count_due, read_now, read_summary
from refresher.postgres.tokens import (
    TokenStore,
    consents_ending,
    free_waiting,
    ignored_tokens,
)
from refresher.postgres.write_back import WriteBack
from refresher.schedule import Schedule
from refresher.settings import Settings, split_keys
from refresher.tiktok.client import Client, opened

SUMMARY_SECONDS: Final = 60.0
TEND_TOKENS_SECONDS: Final = 3600.0
IGNORED_TOKENS_SECONDS: Final = 10.0
#: Kept of the grace time for closing connections.
CLOSING_SECONDS: Final = 1.0
READY_SECONDS: Final = 2.0
#: `once` leaves an account alone that has failed so often in a row.
ONCE_FAILURES: Final = 3
#: And gives up when the API has been down for so long.
ONCE_AWAY_SECONDS: Final = 15.0
#: In so long a replica notices that its connection to the database is dead, and connects anew.
NOTICING_SECONDS: Final = 12.0


@dataclass(frozen=True, slots=True)
class App:
    """The assembled parts that commands drive."""

    settings: Settings
    pool: Pool
    sealer: Sealer
    refresher: Refresher
    schedule: Schedule
    outage: Outage
    replica: str
    stop: asyncio.Event


def due_policy(settings: Settings) -> DuePolicy:
    return DuePolicy(
        lead=timedelta(seconds=settings.lead_seconds),
        spread=timedelta(seconds=settings.spread_seconds),
        fallback_ttl=timedelta(seconds=settings.fallback_ttl_seconds),
        missing_limit=settings.missing_limit,
    )


@asynccontextmanager
async def assembled(settings: Settings) -> AsyncIterator[App]:
    """The parts, connected to each other; nothing runs yet."""
    replica = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    outage = Outage(random.random, monotonic)
    pace = settings.pace
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            connected(settings.database_url.get_secret_value(), application_name=APPLICATION_NAME)
        )
        client = _client(settings)
        tiktok = await stack.enter_async_context(
            opened(settings.tiktok_base_url, settings.concurrency, client)
        )
        sealer = Sealer(split_keys(settings.token_keys))
        claims = Claims(
            pool,
            replica=replica,
            pace=pace,
            managed=settings.refreshes_tokens,
            sealer=sealer,
        )
        keeper = TokenKeeper(
            TokenStore(
                pool,
                sealer,
                unknown_seconds=pace.lease_seconds + NOTICING_SECONDS,
                client=client.fingerprint if client else "",
            ),
            outage=outage,
            chance=random.random,
            clock=monotonic,
        )
        refresher = Refresher(
            claims,
            tiktok,
            WriteBack(pool),
            keeper,
            terms=Terms(
                policy=due_policy(settings),
                concurrency=settings.concurrency,
                request_timeout_seconds=settings.request_timeout_seconds,
                poll_seconds=settings.poll_seconds,
                lease_seconds=pace.lease_seconds,
                grace_seconds=max(0.0, settings.shutdown_grace_seconds - CLOSING_SECONDS),
            ),
            outage=outage,
            chance=random.random,
            clock=monotonic,
        )
        stop = asyncio.Event()
        yield App(settings, pool, sealer, refresher, Schedule(), outage, replica, stop)


def _client(settings: Settings) -> Client | None:
    key, secret = settings.tiktok_client_key, settings.tiktok_client_secret
    return Client(key.get_secret_value(), secret.get_secret_value()) if key and secret else None


async def run(settings: Settings) -> None:
    """The daemon: until SIGTERM or SIGINT.

    A database that is away is waited for. Raises `SchemaNotMigratedError`, `DatabaseRefusedError`,
    and OSError for an operations address that cannot be had.
    """
    async with assembled(settings) as app:
        stop_on_signals(app)
        if settings.ignored:
            emit(events.SETTINGS_IGNORED, variables=settings.ignored)
        if ignored := ignored_parameters(settings.database_url.get_secret_value()):
            emit(events.PARAMETERS_IGNORED, parameters=list(ignored))
        async with served(settings.http_listen, partial(_what_is_missing, app.pool)):
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
                replica=app.replica,
                version=version("cover-refresher"),
                base_url=settings.tiktok_base_url,
            )
            _warn_of_tokens(app)
            await work(app)


async def _check_database(app: App) -> None:
    await check_migrated(app.pool)
    restricted = await check_role(app.pool)
    limit = await connection_limit(app.pool)
    await check_readable(app.pool, app.sealer)
    if restricted:
        emit(events.ROWS_RESTRICTED, tables=restricted)
    if limit is not None:
        emit(events.CONNECTIONS_LIMITED, limit=limit, wanted=POOL_SIZE)


async def _free_waiting(app: App) -> None:
    """Credentials that have changed are tried at once: nobody waits for what is put right."""
    client = _client(app.settings)
    if client is None or not app.settings.refreshes_tokens:
        return
    if accounts := await free_waiting(app.pool, client.fingerprint, _refused("free")):
        emit(events.CLIENT_REPLACED, accounts=accounts)


def _warn_of_tokens(app: App) -> None:
    if not app.sealer.seals:
        emit(events.TOKENS_UNSEALED, reason="REFRESHER_TOKEN_KEYS is not set")
    if app.settings.lacks_client:
        reason = "REFRESHER_TIKTOK_CLIENT_KEY and REFRESHER_TIKTOK_CLIENT_SECRET are not set"
        emit(events.TOKENS_UNMANAGED, reason=reason)


async def work(
    app: App,
    finished: Callable[[], Awaitable[bool]] | None = None,
    summary_seconds: float = SUMMARY_SECONDS,
) -> None:
    """Refresh until stopped or finished, with the ticks, the summary and the audit beside it."""
    gc.freeze()  # what is loaded by now is never garbage
    at_once = asyncio.Event()
    at_once.set()
    on_each = partial(_on_each, app.outage)
    loops = (
        on_each(
            "tend tokens",
            app.schedule.every(TEND_TOKENS_SECONDS, at_once),
            partial(_tend_tokens, app),
        ),
        on_each(
            "summary",
            app.schedule.every(summary_seconds, asyncio.Event()),
            Summarizer(app).summarize,
        ),
        on_each("audit", app.schedule.every(AUDIT_SECONDS, asyncio.Event()), partial(_audit, app)),
        on_each(
            "ignored tokens",
            app.schedule.every(IGNORED_TOKENS_SECONDS, asyncio.Event()),
            partial(_tell_ignored_tokens, app),
        ),
        _on_first(app.stop, app.refresher.stop),
    )
    app.schedule.every(app.settings.poll_seconds, app.refresher.wake)
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        with app.schedule.running():
            abandoned = await app.refresher.run(finished)
    finally:
        await cancelled(tasks)
    emit(events.DAEMON_STOPPED, abandoned_accounts=abandoned)


async def once(settings: Settings, on_progress: Callable[[int, int], None]) -> int:
    """Ask for everything due now; the number of due videos that could not be answered.

    `on_progress` hears of videos answered and due. Raises `DatabaseUnavailable` and as `run`.
    """
    async with assembled(settings) as app:
        stop_on_signals(app)
        await _check_database(app)
        started = await read_now(app.pool)
        due = await count_due(app.pool, started)

        async def finished() -> bool:
            on_progress(min(app.refresher.tally.ids, due), due)
            if app.refresher.upstream_away_seconds > ONCE_AWAY_SECONDS:
                return True
            given_up = app.refresher.given_up()
            return not await any_left(app.pool, started, ONCE_FAILURES, given_up)

        await work(app, finished)
        left = await count_due(app.pool, started)
        on_progress(due - left, due)
        return left


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


class Summarizer:
    """Says every minute how fresh the covers are and what this replica did since."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._tally = Tally()

    async def summarize(self) -> None:
        summary = await read_summary(self._app.pool)
        now = self._app.refresher.tally
        done, self._tally = now.since(self._tally), now
        emit(events.FRESHNESS_SUMMARIZED, **summary_fields(summary, done))


def summary_fields(summary: Summary, done: Tally) -> dict[str, object]:
    """The fields of `freshness.summarized`."""
    return {
        **asdict(summary),
        "requests": done.requests,
        "refreshed": done.refreshed,
        "unchanged": done.unchanged,
        "left_out": done.missing,
        "rejected": done.rejected,
        "chunk_fill": chunk_fill(done),
        "throttled": done.throttled,
    }


def chunk_fill(done: Tally) -> float | None:
    """IDs per request / 20; None where nothing was asked."""
    return round(done.ids / done.requests / CHUNK_SIZE, 3) if done.requests else None


async def _tend_tokens(app: App) -> None:
    """Free what waits for other credentials, seal plain text, and warn of consents that end."""
    await _free_waiting(app)
    if sealed := await seal_all(app.pool, app.sealer, _refused("seal")):
        emit(events.TOKENS_SEALED, accounts=sealed)
    told: set[OpenId] = set()
    # A trigger that keeps the note out of its row must not make it news for ever.
    while ending := [
        one for one in await consents_ending(app.pool, _refused("consent")) if one[0] not in told
    ]:
        for open_id, ends_at, days in ending:
            told.add(open_id)
            emit(
                events.CONSENT_WARNED,
                open_id=open_id,
                ends_at=ends_at.isoformat(),
                within_days=days,
            )


def _refused(at: str) -> Callable[[OpenId, Exception], None]:
    """Says what stands in the way of an account that is left as it is."""

    def say(open_id: OpenId, error: Exception) -> None:
        emit(
            events.ACCOUNT_REFUSED,
            open_id=open_id,
            at=at,
            reason=first_line(error),
            retry_in_seconds=None,
        )

    return say


async def _tell_ignored_tokens(app: App) -> None:
    for open_id, writes in await ignored_tokens(app.pool, _refused("ignored tokens")):
        emit(events.TOKENS_IGNORED, open_id=open_id, writes=writes)


async def _audit(app: App) -> None:
    mended = await audit_step(
        app.pool, managed=app.settings.refreshes_tokens, refused=_refused("audit")
    )
    for open_id, overslept_seconds in mended:
        emit(events.ACCOUNT_MENDED, open_id=open_id, overslept_seconds=overslept_seconds)


async def _on_first(event: asyncio.Event, act: Callable[[], None]) -> None:
    await event.wait()
    act()


async def _on_each(
    outage: Outage, name: str, tick: asyncio.Event, unit: Callable[[], Awaitable[None]]
) -> None:
    """Run the unit on every tick, whatever becomes of it; `name` is the loop's in the log."""
    failing_since, said = inf, False
    while True:
        await tick.wait()
        tick.clear()
        try:
            await unit()
        except DatabaseUnavailable as error:
            if is_away(error):
                continue  # the flow says so
            # A lock or a slow moment may pass, and a time-out may be an outage: it is told of once
            # it fails again while others are answered.
            if not said and outage.answered_at >= failing_since:
                said = True
                emit(events.LOOP_FAILED, loop=name, exc_info=error)
            failing_since = min(failing_since, monotonic())
        except Exception as error:  # noqa: BLE001 - a summary must not end the refreshing
            emit(events.LOOP_FAILED, loop=name, exc_info=error)
        else:
            failing_since, said = inf, False


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
