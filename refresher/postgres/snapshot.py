"""The fleet in one reading, for metrics and the status page."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from asyncpg import Record

from refresher.domain.errors import DatabaseUnavailable, is_away
from refresher.domain.pacing import REFUSED_SECONDS
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.outbox import Outbox, read_outbox
from refresher.postgres.probes import DayOfProbes, count_probes
from refresher.postgres.replicas import Replica, seen_replicas
from refresher.postgres.statements import Statement, statement
from refresher.postgres.status import Quota, Summary, read_now, read_quota, read_summary
from refresher.postgres.told import Waiting, read_waiting

T = TypeVar("T")

TROUBLED_ACCOUNTS: Final = statement("troubled_accounts")
CONSENTS: Final = statement("consents")
APP_STATE: Final = statement("app_state")


@dataclass(frozen=True, slots=True)
class Kind:
    """Accounts in the same state for the same reason."""

    #: `active`, `isolated`, `paused`, `needs_reauthorization` or `needs_scope`.
    state: str
    reason: str | None
    accounts: int
    #: Since when the first of them; None for active accounts.
    first_since: datetime | None


@dataclass(frozen=True, slots=True)
class Consents:
    """How many consents have ended or end soon, of accounts that are not parked."""

    ended: int
    within_3_days: int
    within_14_days: int
    within_30_days: int
    next_end: datetime | None


@dataclass(frozen=True, slots=True)
class AppState:
    """What holds for the app as a whole."""

    #: Requests a minute; None where 429s have shown no limit of the app lately.
    learned_per_minute: float | None
    #: When they last did.
    throttled_at: datetime | None
    #: Since when everything is paused.
    paused_since: datetime | None
    #: The fingerprint of the app credentials that TikTok refused last, and when.
    refused_client: str | None
    client_refused_at: datetime | None

    def refused_at(self, fingerprint: str | None, now: datetime) -> datetime | None:
        """When TikTok refused the app credentials with this fingerprint; None: not lately."""
        if self.client_refused_at is None or self.refused_client != fingerprint:
            return None
        is_old = (now - self.client_refused_at).total_seconds() > REFUSED_SECONDS
        return None if is_old else self.client_refused_at


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet at one time, by the database's clock."""

    taken_at: datetime
    summary: Summary
    quota: Quota
    kinds: Sequence[Kind]
    consents: Consents
    app: AppState
    #: None: the database did not tell, for lack of a right on their table for one.
    replicas: Sequence[Replica] | None
    #: What waits to be told to the application; None as above, as with what follows.
    outbox: Outbox | None
    probes: DayOfProbes | None
    #: The attached tables.
    attached: Sequence[Waiting] | None


async def read_snapshot(pool: Pool) -> Snapshot:
    """Read it. Raises `DatabaseUnavailable`."""
    return Snapshot(
        taken_at=await read_now(pool),
        summary=await read_summary(pool),
        quota=await read_quota(pool),
        kinds=[Kind(**dict(row)) for row in await _rows(pool, TROUBLED_ACCOUNTS)],
        consents=Consents(**dict((await _rows(pool, CONSENTS))[0])),
        app=AppState(**dict((await _rows(pool, APP_STATE))[0])),
        replicas=await _if_allowed(seen_replicas(pool)),
        outbox=await _if_allowed(read_outbox(pool)),
        probes=await _if_allowed(count_probes(pool)),
        attached=await _if_allowed(read_waiting(pool)),
    )


async def _if_allowed(reading: Awaitable[T]) -> T | None:
    # The table is new: a role may lack its grant, and all the rest can be read.
    try:
        return await reading
    except DatabaseUnavailable as error:
        if is_away(error):
            raise
        return None


async def _rows(pool: Pool, statement: Statement) -> Sequence[Record]:
    async with acquired(pool) as connection:
        rows: Sequence[Record] = await connection.fetch(*statement(), timeout=REPORT_SECONDS)
    return rows
