"""What a daemon does beside the flow, each on its tick: heartbeat, summary, webhooks and more."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from math import inf
from time import monotonic
from typing import Final

from refresher import events
from refresher.attachments import TOLD_SECONDS, WALK_SECONDS, Attachments
from refresher.domain.errors import DatabaseUnavailable, is_away
from refresher.domain.meter import Meter
from refresher.domain.model import CHUNK_SIZE, OpenId
from refresher.domain.pacing import BEAT_SECONDS
from refresher.flow.outage import Outage
from refresher.flow.work import Tally
from refresher.forecasting import FORECAST_SECONDS, warn_of_deaths
from refresher.logs import emit
from refresher.postgres.audit import AUDIT_SECONDS, audit_step
from refresher.postgres.database import Pool
from refresher.postgres.failures import first_line
from refresher.postgres.listening import wake_all
from refresher.postgres.replicas import beat
from refresher.postgres.sealing import Sealer, seal_all
from refresher.postgres.sessions import LOOK_SECONDS, Sessions
from refresher.postgres.status import count_isolated, read_quota, read_summary
from refresher.postgres.tokens import consents_ending, free_waiting, ignored_tokens
from refresher.probing import Probing
from refresher.schedule import Schedule
from refresher.simulation.plan import Plan
from refresher.webhooks.delivery import DELIVER_SECONDS, TIDY_SECONDS, Delivery, tidy

SUMMARY_SECONDS: Final = 60.0
TEND_TOKENS_SECONDS: Final = 3600.0
IGNORED_TOKENS_SECONDS: Final = 10.0

#: Its name, how often it turns, what sets it going, and what it does.
Loop = tuple[str, float, asyncio.Event, Callable[[], Awaitable[None]]]


@dataclass(slots=True)
class Upkeep:
    """The work beside the flow. Each method raises `DatabaseUnavailable`."""

    pool: Pool
    sealer: Sealer
    #: The name of this process, and its version.
    replica: str
    version: str
    #: What this replica has done so far.
    tally: Callable[[], Tally]
    #: Knows what TikTok has answered, and hears of the turns of the loops.
    meter: Meter
    #: Since when everything is paused; None: it is not.
    paused_since: Callable[[], datetime | None]
    #: Whether the daemon renews the access tokens.
    managed: bool
    #: Of the app credentials in use; None where there are none.
    fingerprint: str | None
    #: Requests that an account may send in a minute; 0: no such limit.
    limit_per_minute: int
    #: What a forecast looks at: the settings, and how far ahead.
    plan: Plan
    probing: Probing
    #: Which replicas keep a session open, and which are gone.
    sessions: Sessions
    #: The tables that applications have attached.
    attachments: Attachments
    #: None: no webhook URL is set.
    webhooks: Delivery | None = None
    #: How many accounts the last summary found.
    accounts: int = 0
    #: The tally of the last summary.
    summarized: Tally = field(default_factory=Tally)
    #: How many requests TikTok had answered at the last heartbeat.
    answers_told: int = 0

    async def beat(self) -> None:
        """Tell operators that this replica runs, and whether TikTok has answered it since."""
        answers = self.meter.answers()
        progressed = answers > self.answers_told
        await beat(self.pool, self.replica, self.version, progressed=progressed)
        self.answers_told = answers

    async def take_over(self) -> None:
        """End the leases of replicas that are gone, so that the others claim their accounts."""
        for session, replica in (await self.sessions.look()).items():
            accounts = await self.sessions.end_leases(replica, session, _refused("takeover"))
            if accounts is not None:
                emit(events.REPLICA_LOST, lost_replica=replica, accounts=accounts)
                await wake_all(self.pool)

    async def summarize(self) -> None:
        """Say how fresh the covers are, and what this replica did since the last summary."""
        summary = await read_summary(self.pool)
        self.accounts = sum(summary.accounts.values())
        quota = await read_quota(self.pool)
        isolated = await count_isolated(self.pool)
        now = self.tally()
        done, self.summarized = now.since(self.summarized), now
        paused_since = self.paused_since()
        emit(
            events.FRESHNESS_SUMMARIZED,
            **asdict(summary),
            requests=done.requests,
            refreshed=done.refreshed,
            unchanged=done.unchanged,
            left_out=done.missing,
            rejected=done.rejected,
            chunk_fill=chunk_fill(done),
            throttled=done.throttled,
            isolated=isolated,
            hour_requests=quota.requests,
            hour_busiest=quota.busiest,
            limit_per_minute=self.limit_per_minute,
            paused_since=paused_since.isoformat() if paused_since else None,
        )

    async def tend_tokens(self) -> None:
        """Wake what waits for new app credentials, seal plain text, warn of consents that end."""
        await self._wake_waiting()
        if sealed := await seal_all(self.pool, self.sealer, _refused("seal")):
            emit(events.TOKENS_SEALED, accounts=sealed)
        await self._warn_of_consents()

    async def tell_ignored_tokens(self) -> None:
        """Say which accounts an application wrote an old token pair to."""
        for open_id, writes in await ignored_tokens(self.pool, _refused("ignored tokens")):
            emit(events.TOKENS_IGNORED, open_id=open_id, writes=writes)

    async def audit(self) -> None:
        """Count some accounts again, and mend what has drifted."""
        mended = await audit_step(
            self.pool, managed=self.managed, accounts=self.accounts, refused=_refused("audit")
        )
        for open_id, overslept_seconds in mended:
            emit(events.ACCOUNT_MENDED, open_id=open_id, overslept_seconds=overslept_seconds)

    async def forecast(self) -> None:
        """Say that covers will die, if it is this replica's turn to look."""
        await warn_of_deaths(
            self.pool, self.plan, managed=self.managed, fingerprint=self.fingerprint
        )

    async def tidy_outbox(self) -> None:
        """Give up old webhooks, and keep changes going to the outbox if we deliver them."""
        await tidy(self.pool, on=self.webhooks is not None)

    async def share_hosts(self) -> None:
        """Hear of hosts whose covers die early, and bring forward what was stored before."""
        await self.probing.share_hosts()
        await self.probing.bring_forward(_refused("forward"))

    async def _wake_waiting(self) -> None:
        """Changed credentials are tried at once: nobody waits for what is put right."""
        if self.fingerprint is None or not self.managed:
            return
        if accounts := await free_waiting(self.pool, self.fingerprint, _refused("free")):
            emit(events.CLIENT_REPLACED, accounts=accounts)

    async def _warn_of_consents(self) -> None:
        told: set[OpenId] = set()
        # A trigger may keep the note out of the row: each account is still told of once only.
        while ending := [
            one
            for one in await consents_ending(self.pool, _refused("consent"))
            if one[0] not in told
        ]:
            for open_id, ends_at, days in ending:
                told.add(open_id)
                emit(
                    events.CONSENT_WARNED,
                    open_id=open_id,
                    ends_at=ends_at.isoformat(),
                    within_days=days,
                )


def begin(
    upkeep: Upkeep,
    schedule: Schedule,
    outage: Outage,
    *,
    summary_seconds: float = SUMMARY_SECONDS,
    probes: bool = True,
) -> list[asyncio.Task[None]]:
    """Start the loops; those that need not wait begin at once. The caller cancels the tasks.

    `probes`: fetch covers, if the settings say so.
    """
    loops: list[Loop] = [
        ("cover hosts", BEAT_SECONDS, _at_once(), upkeep.share_hosts),
        ("heartbeat", BEAT_SECONDS, _at_once(), upkeep.beat),
        ("takeover", LOOK_SECONDS, asyncio.Event(), upkeep.take_over),
        ("tend tokens", TEND_TOKENS_SECONDS, _at_once(), upkeep.tend_tokens),
        ("summary", summary_seconds, asyncio.Event(), upkeep.summarize),
        ("forecast", FORECAST_SECONDS, asyncio.Event(), upkeep.forecast),
        ("audit", AUDIT_SECONDS, asyncio.Event(), upkeep.audit),
        ("ignored tokens", IGNORED_TOKENS_SECONDS, asyncio.Event(), upkeep.tell_ignored_tokens),
        ("attachments", WALK_SECONDS, asyncio.Event(), upkeep.attachments.walk),
        ("told rows", TOLD_SECONDS, upkeep.attachments.told, upkeep.attachments.apply),
        ("told covers", TOLD_SECONDS, asyncio.Event(), upkeep.attachments.carry),
        ("outbox", TIDY_SECONDS, asyncio.Event(), upkeep.tidy_outbox),
        *_deliveries(upkeep.webhooks),
    ]
    if probes and upkeep.probing.per_hour:
        probing = upkeep.probing
        loops.append(("probe", probing.look_seconds, asyncio.Event(), probing.probe))
    return [
        asyncio.create_task(
            on_each(outage, name, schedule.every(seconds, tick), _told(upkeep.meter, name, unit))
        )
        for name, seconds, tick, unit in loops
    ]


def _deliveries(webhooks: Delivery | None) -> Iterator[Loop]:
    if webhooks:
        yield "webhooks", DELIVER_SECONDS, _at_once(), webhooks.deliver


def _told(
    meter: Meter, name: str, unit: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[None]]:
    """The unit. However it ends, its loop has turned: what it raises is told elsewhere."""

    async def turn() -> None:
        try:
            await unit()
        finally:
            meter.turned(name, monotonic())

    return turn


def _at_once() -> asyncio.Event:
    tick = asyncio.Event()
    tick.set()
    return tick


async def on_each(
    outage: Outage, name: str, tick: asyncio.Event, unit: Callable[[], Awaitable[None]]
) -> None:
    """Run the unit on every tick, for ever. What it raises is logged with the loop's `name`."""
    failing_since, said = inf, False
    while True:
        await tick.wait()
        tick.clear()
        try:
            await unit()
        except DatabaseUnavailable as error:
            if is_away(error):
                continue  # the flow says so
            # A lock may pass, and a time-out may be an outage: it is told of once it fails again
            # while others are answered.
            if not said and outage.answered_at >= failing_since:
                said = True
                emit(events.LOOP_FAILED, loop=name, exc_info=error)
            failing_since = min(failing_since, monotonic())
        except Exception as error:  # noqa: BLE001 - a summary must not end the refreshing
            emit(events.LOOP_FAILED, loop=name, exc_info=error)
        else:
            failing_since, said = inf, False


def chunk_fill(done: Tally) -> float | None:
    """IDs per request / 20; None where nothing was asked."""
    return round(done.ids / done.requests / CHUNK_SIZE, 3) if done.requests else None


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
