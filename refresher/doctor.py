"""Reads all that `doctor` looks at, as far as it can be read and there is time."""

import asyncio
import math
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from time import monotonic
from typing import Final, TypeVar

import asyncpg

from refresher.domain.checkup import facts
from refresher.domain.checkup.checks import CHECKS
from refresher.domain.due import DuePolicy, seconds_ahead
from refresher.domain.errors import DatabaseUnavailable, UpstreamFailed
from refresher.domain.quota import Demand
from refresher.postgres import vitals
from refresher.postgres.connector import ignored_parameters
from refresher.postgres.database import Pool, connected
from refresher.postgres.failures import first_line
from refresher.postgres.sealing import Sealer
from refresher.settings import KINDS, PREFIX, Settings, split_keys, unknown_names

#: For all of it, whatever does not answer, if the database is near.
SECONDS: Final = 3.0
#: For each second that a statement takes on its way, so many more: they go one after the other.
STATEMENTS: Final = 30
#: But no longer in all.
MOST_SECONDS: Final = 10.0
#: Of all that, for opening tokens.
TOKEN_SECONDS: Final = 1.0
TIMED_OUT: Final = "no answer in time"
#: Half of what a time in whole seconds leaves out.
HALF_SECOND: Final = 0.5

F = TypeVar("F")


def configured(error: str | None) -> facts.Configured:
    """The settings, of which `error` says what is wrong."""
    names = [PREFIX + name.upper() for name in KINDS]
    return facts.Configured(error, unknown_names(), names)


def without_settings(error: str) -> dict[type, object]:
    """All that there is to see where the settings cannot be read."""
    examination = Examination(0.0)
    examination.put(configured(error))
    examination.leave_out("the settings cannot be read")
    return examination.facts


async def examine(settings: Settings, *, online: bool) -> dict[type, object]:
    """All facts by their type; `Unread` for each that could not be read.

    Sends nothing to TikTok but, with `online`, one request without a token.
    """
    examination = Examination(asyncio.get_running_loop().time() + SECONDS)
    examination.put(configured(None))
    async with asyncio.TaskGroup() as group:
        group.create_task(_examine_database(examination, settings))
        if online:
            group.create_task(_examine_tiktok(examination, settings))
    if online:
        _compare_clocks(examination)
    else:
        examination.put_unread(facts.Greeting, "asked only with --online")
    return examination.facts


class Examination:
    """Gathers facts until the time is up."""

    def __init__(self, ends_at: float) -> None:
        #: By the clock of the event loop.
        self._ends_at = ends_at
        self.facts: dict[type, object] = {}

    def lengthen(self, seconds: float) -> None:
        """Take so much longer, `MOST_SECONDS` at most."""
        self._ends_at += min(seconds, MOST_SECONDS - SECONDS)

    def put(self, fact: object) -> None:
        self.facts[type(fact)] = fact

    def put_unread(self, kind: type, why: str) -> None:
        self.facts[kind] = facts.Unread(why)

    def leave_out(self, why: str) -> None:
        """Nothing more can be read."""
        for check in CHECKS:
            self.facts.setdefault(check.about, facts.Unread(why))

    async def read(self, kind: type[F], reading: Awaitable[F]) -> F | None:
        """Read a fact; None, and why it is missing among the facts, if it cannot be read."""
        try:
            fact = await self.in_time(reading)
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            unanswered = isinstance(error, DatabaseUnavailable)
            self.facts[kind] = facts.Unread(first_line(error), unanswered)
            return None
        self.put(fact)
        return fact

    async def in_time(self, reading: Awaitable[F]) -> F:
        """Raises `DatabaseUnavailable` when the time is up."""
        try:
            async with asyncio.timeout_at(self._ends_at):
                return await reading
        except TimeoutError:
            raise DatabaseUnavailable(TIMED_OUT) from None


async def _examine_database(examination: Examination, settings: Settings) -> None:
    url = settings.database_url.get_secret_value()
    try:
        examination.put(facts.Parameters(ignored_parameters(url)))
        async with connected(
            url, schema=settings.schema, application_name="refresher-doctor"
        ) as pool:
            server = await examination.in_time(vitals.read_server(pool, _wall_clock))
            for fact in server:
                examination.put(fact)
            _, session, clocks = server
            examination.lengthen(STATEMENTS * 2 * clocks.tolerance_seconds)
            await _examine_schema(examination, pool, settings, session.pooling)
    except DatabaseUnavailable as error:
        examination.put(facts.Reached(first_line(error)))
        examination.leave_out("the database does not answer")


async def _examine_schema(
    examination: Examination, pool: Pool, settings: Settings, pooling: facts.Pooling
) -> None:
    schema = await examination.read(facts.Schema, vitals.read_schema(pool))
    if schema is None or schema.revision:  # the role may be why nothing could be read
        await examination.read(facts.Role, vitals.read_role(pool))
    if schema is None or schema.is_outdated:
        examination.leave_out("the schema is missing, outdated or hidden")
        return
    await examination.read(facts.Tables, vitals.read_tables(pool))
    await examination.read(facts.Snapshots, vitals.read_snapshots(pool))
    await examination.read(facts.Indexes, vitals.read_indexes(pool))
    await examination.read(facts.Replicas, vitals.read_fleet(pool, version("cover-refresher")))
    await examination.read(facts.Listening, vitals.read_listening(pool, pooling))
    await examination.read(facts.Webhooks, vitals.read_webhooks(pool))
    await examination.read(facts.Attachments, vitals.read_attachments(pool))
    sealer, seconds = Sealer(split_keys(settings.token_keys)), TOKEN_SECONDS
    await examination.read(facts.Tokens, vitals.read_tokens(pool, sealer, seconds, monotonic))
    troubles = vitals.read_troubles(pool, managed=settings.renews_tokens)
    await examination.read(facts.Troubles, troubles)
    await examination.read(facts.Pause, vitals.read_pause(pool))
    await examination.read(facts.CoverHosts, vitals.read_cover_hosts(pool))
    await examination.read(facts.Probes, vitals.read_probes(pool))
    # Last what reads videos: it may wait for who has locked them.
    await _examine_plan(examination, pool, settings)
    await _examine_covers(examination, pool, settings.due_policy)
    await examination.read(facts.Scatter, vitals.read_scatter(pool))


async def _examine_covers(examination: Examination, pool: Pool, policy: DuePolicy) -> None:
    """How fresh covers are. A pause is a problem once some have expired."""
    lead_seconds = _lead_seconds(examination.facts.get(facts.Lives), policy)
    covers = await examination.read(facts.Covers, vitals.read_covers(pool, lead_seconds))
    pause = examination.facts[facts.Pause]
    if covers and isinstance(pause, facts.Pause):
        examination.put(replace(pause, expired=covers.expired))


def _lead_seconds(lives: object, policy: DuePolicy) -> float:
    """How long before it dies a cover is asked for, at the latest."""
    if isinstance(lives, facts.Lives) and lives.sampled:
        return seconds_ahead(policy, 0.0, lives.short_seconds)
    return policy.lead.total_seconds()


async def _examine_plan(examination: Examination, pool: Pool, settings: Settings) -> None:
    """The app, how long covers live, and what they need."""
    credentials = settings.app_credentials
    fingerprint = credentials.fingerprint if credentials else None
    managed = settings.renews_tokens or settings.lacks_credentials
    app = await examination.read(facts.App, vitals.read_app(pool, fingerprint, needed=managed))
    lives = await examination.read(facts.Lives, vitals.read_lives(pool, settings.due_policy))
    if lives and not lives.sampled:
        examination.put_unread(Demand, "no cover is stored yet")
    elif app and lives:
        demand = vitals.read_demand(pool, lives, settings.pace, app)
        await examination.read(Demand, demand)
    else:
        why = "it needs the app's limit and how long covers live"
        examination.facts[Demand] = facts.Unread(why, unanswered=True)


async def _examine_tiktok(examination: Examination, settings: Settings) -> None:
    # Loaded only if it is asked for: it takes as long as all the rest.
    from refresher.tiktok import client  # noqa: PLC0415

    async with client.opened(settings.tiktok_base_url, 1) as tiktok:
        begun = _wall_clock()
        try:
            greeted = await tiktok.greet(SECONDS)
        except UpstreamFailed as error:
            examination.put(facts.Greeting(error.detail or error.code, status=error.status))
            return
        took = _wall_clock() - begun
    # The header has whole seconds.
    ahead = greeted.sent_at + HALF_SECOND - (begun + took / 2).timestamp()
    told = None if math.isnan(ahead) else ahead
    examination.put(facts.Greeting(None, greeted.status, greeted.code, told))


def _compare_clocks(examination: Examination) -> None:
    """TikTok's clock with the database's, by way of this machine's."""
    greeting = examination.facts.get(facts.Greeting)
    if not isinstance(greeting, facts.Greeting) or greeting.ahead_seconds is None:
        return
    clocks = examination.facts.get(facts.Clocks)
    if isinstance(clocks, facts.Clocks):
        ahead = greeting.ahead_seconds - clocks.ahead_seconds
        examination.put(replace(greeting, ahead_seconds=ahead))
    else:
        examination.put(replace(greeting, ahead_seconds=None))


def _wall_clock() -> datetime:
    return datetime.now(UTC)
