"""Builds the parts, and connects them to each other."""

import asyncio
import os
import random
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from time import monotonic
from typing import Final

from refresher import fetching
from refresher.attachments import Attachments
from refresher.domain.cover_hosts import CoverHosts, local_origin
from refresher.domain.credentials import AppCredentials
from refresher.domain.meter import Meter
from refresher.domain.pacing import NOTICING_SECONDS
from refresher.domain.webhooks import Target
from refresher.events import COVERS_UNANNOUNCED
from refresher.flow.loop import Refresher
from refresher.flow.outage import Outage
from refresher.flow.results import announce_nothing
from refresher.flow.terms import Terms
from refresher.flow.wiring import Outside
from refresher.logs import emit
from refresher.postgres.accounts import Accounts
from refresher.postgres.announcing import Announcer
from refresher.postgres.database import APPLICATION_NAME, Pool, connected
from refresher.postgres.sealing import Sealer
from refresher.postgres.sessions import Sessions
from refresher.postgres.tokens import TokenStore
from refresher.postgres.write_back import WriteBack
from refresher.probing import Fetch, Probing
from refresher.schedule import Schedule
from refresher.settings import Settings, split_keys
from refresher.simulation.plan import DAY_SECONDS, Plan, Ttl
from refresher.tiktok.client import TikTok, opened
from refresher.upkeep import Upkeep
from refresher.webhooks import receiver
from refresher.webhooks.delivery import AT_ONCE, Delivery

#: Kept of the grace time for closing connections.
CLOSING_SECONDS: Final = 1.0


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
    #: None: applications are not told of changed covers.
    announcer: Announcer | None
    hosts: CoverHosts
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


@dataclass(frozen=True, slots=True)
class Common:
    """What the flow and the upkeep share."""

    settings: Settings
    replica: str
    pool: Pool
    sealer: Sealer
    #: None: tokens are not renewed, or by another program.
    credentials: AppCredentials | None
    outage: Outage
    meter: Meter
    hosts: CoverHosts
    announcer: Announcer | None

    @property
    def fingerprint(self) -> str | None:
        """Of the app credentials."""
        return self.credentials.fingerprint if self.credentials else None


@asynccontextmanager
async def assembled(settings: Settings, replica: str) -> AsyncIterator[App]:
    """The parts, connected to each other; nothing runs yet."""
    database_url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        pool = await enter(
            connected(database_url, schema=settings.schema, application_name=APPLICATION_NAME)
        )
        common = _common(settings, replica, pool)
        tiktok = await enter(
            opened(settings.tiktok_base_url, settings.concurrency, common.credentials)
        )
        refresher = Refresher(_outside(common, tiktok), _terms(settings))
        webhooks = await enter(_webhooks(settings.webhook_target, pool))
        probing = _probing(common, await enter(fetching.opened()))
        yield App(
            settings=settings,
            pool=pool,
            sealer=common.sealer,
            refresher=refresher,
            upkeep=_upkeep(common, refresher, probing, webhooks),
            schedule=Schedule(),
            outage=common.outage,
            meter=common.meter,
            announcer=common.announcer,
            hosts=common.hosts,
            replica=replica,
            stop=asyncio.Event(),
        )


def _common(settings: Settings, replica: str, pool: Pool) -> Common:
    return Common(
        settings=settings,
        replica=replica,
        pool=pool,
        sealer=Sealer(split_keys(settings.token_keys)),
        credentials=settings.app_credentials,
        outage=Outage(random.random, monotonic),
        meter=Meter(),
        hosts=CoverHosts(local_origin(settings.tiktok_base_url)),
        announcer=Announcer(pool, _say_unannounced) if settings.notify_covers else None,
    )


def _outside(common: Common, tiktok: TikTok) -> Outside:
    announcer = common.announcer
    return Outside(
        accounts=_accounts(common),
        tokens=_tokens(common),
        write_back=WriteBack(common.pool),
        upstream=tiktok,
        outage=common.outage,
        meter=common.meter,
        hosts=common.hosts,
        chance=random.random,
        clock=monotonic,
        announce=announcer.note if announcer else announce_nothing,
    )


def _upkeep(
    common: Common, refresher: Refresher, probing: Probing, webhooks: Delivery | None
) -> Upkeep:
    settings = common.settings
    return Upkeep(
        common.pool,
        common.sealer,
        common.replica,
        version("cover-refresher"),
        tally=lambda: refresher.tally,
        meter=common.meter,
        paused_since=lambda: refresher.paused_since,
        managed=settings.renews_tokens,
        fingerprint=common.fingerprint,
        limit_per_minute=settings.rate_limit_per_token,
        plan=plan_of(settings, "hourly", DAY_SECONDS),
        webhooks=webhooks,
        probing=probing,
        sessions=Sessions(
            common.pool,
            common.replica,
            version("cover-refresher"),
            lease_seconds=settings.pace.lease_seconds,
            clock=monotonic,
        ),
        attachments=Attachments(common.pool),
    )


def _probing(common: Common, fetcher: Fetch) -> Probing:
    return Probing(
        common.pool,
        common.hosts,
        common.settings.due_policy,
        fetcher,
        per_hour=common.settings.probes_per_hour,
        meter=common.meter,
        chance=random.random,
        clock=monotonic,
    )


def _say_unannounced(videos: int, reason: str) -> None:
    emit(COVERS_UNANNOUNCED, videos=videos, reason=reason)


@asynccontextmanager
async def _webhooks(target: Target | None, pool: Pool) -> AsyncIterator[Delivery | None]:
    if target is None:
        yield None
        return
    async with receiver.opened(target, AT_ONCE) as opened_receiver:
        yield Delivery(pool, opened_receiver, random.random, monotonic)


def _accounts(common: Common) -> Accounts:
    settings = common.settings
    return Accounts(
        common.pool,
        replica=common.replica,
        pace=settings.pace,
        managed=settings.renews_tokens,
        sealer=common.sealer,
    )


def _tokens(common: Common) -> TokenStore:
    return TokenStore(
        common.pool,
        common.sealer,
        unknown_seconds=common.settings.pace.lease_seconds + NOTICING_SECONDS,
        credentials=common.fingerprint or "",
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
