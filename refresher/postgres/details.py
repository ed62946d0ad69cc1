"""What the status page shows beside the snapshot: who is overdue, throttled or in trouble."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from asyncpg import Record

from refresher.domain.missing import Missing
from refresher.domain.pacing import Pace
from refresher.postgres.database import REPORT_SECONDS, Pool, acquired
from refresher.postgres.statements import Bound, statement

#: Where the bars of the histogram begin, in seconds from now.
EXPIRY_BOUNDS: Final = (0.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0)
#: Accounts at risk, throttled ones, and ones with missing videos, that are named.
NAMED: Final = 20
#: States of accounts in trouble, as operators see them.
TROUBLES: Final = ("needs_reauthorization", "needs_scope", "dead_token", "isolated", "paused")

EXPIRING: Final = statement("expiring")
OVERDUE: Final = statement("overdue")
AT_RISK: Final = statement("at_risk")
THROTTLED: Final = statement("throttled")
TROUBLED_BY_AGE: Final = statement("troubled_by_age")
MISSING_OF_ACCOUNTS: Final = statement("missing_of_accounts")
LIST_TROUBLED: Final = statement("list_troubled")


@dataclass(frozen=True, slots=True)
class Overdue:
    """Accounts that have something due, by what holds them up."""

    reason: str
    accounts: int
    #: Since when the first of them has; None if that is not known.
    first_since: datetime | None


@dataclass(frozen=True, slots=True)
class AtRisk:
    """An account with something due, and when the first of its covers expires."""

    open_id: str
    videos: int
    valid: int
    valid_until: datetime
    #: What holds it up.
    reason: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """An account that 429s have slowed down."""

    open_id: str
    #: Nothing is sent before.
    free_at: datetime
    #: Its share of the rate limit now.
    rate_share: float


@dataclass(frozen=True, slots=True)
class Aged:
    """Accounts in the same trouble for the same reason, by how long."""

    state: str
    reason: str | None
    accounts: int
    videos: int
    first_since: datetime
    within_day: int
    within_week: int
    longer: int


@dataclass(frozen=True, slots=True)
class Details:
    """What the status page shows beside the snapshot."""

    #: Covers that expire before the first bound of `EXPIRY_BOUNDS`, between two, after the last.
    expiring: Sequence[int]
    overdue: Sequence[Overdue]
    at_risk: Sequence[AtRisk]
    #: The first ones, and how many there are.
    throttled: Sequence[Throttled]
    all_throttled: int
    aged: Sequence[Aged]
    #: Those with the most missing videos, and how many accounts have some.
    missing: Sequence[Missing]
    all_missing: int

    @property
    def dead_tokens(self) -> int:
        """Active accounts whose access token is dead and was not renewed."""
        return sum(row.accounts for row in self.aged if row.state == "dead_token")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A part of the accounts in trouble; None asks for every state or reason."""

    state: str | None = None
    reason: str | None = None
    #: The open_id before the first one.
    after: str = ""


@dataclass(frozen=True, slots=True)
class Troubled:
    """An account that is paused, parked or isolated, or whose access token stays dead."""

    open_id: str
    state: str
    reason: str | None
    since: datetime
    videos: int
    valid: int


async def read_details(pool: Pool, pace: Pace, *, managed: bool) -> Details:
    """Read them. Raises `DatabaseUnavailable`, as every function here."""
    horizon = timedelta(seconds=pace.horizon_seconds)
    throttled = await _rows(pool, THROTTLED(rows=NAMED, horizon=horizon))
    overdue = await _rows(pool, OVERDUE(horizon=horizon, managed=managed))
    at_risk = await _rows(pool, AT_RISK(rows=NAMED, horizon=horizon, managed=managed))
    missing, all_missing = await read_missing(pool)
    aged = await _rows(pool, TROUBLED_BY_AGE(managed=managed))
    return Details(
        expiring=_counted(await _rows(pool, EXPIRING(bounds=list(EXPIRY_BOUNDS)))),
        overdue=[Overdue(**dict(row)) for row in overdue],
        at_risk=[AtRisk(**dict(row)) for row in at_risk],
        throttled=[
            Throttled(row["open_id"], row["free_at"], row["rate_share"]) for row in throttled
        ],
        all_throttled=throttled[0]["accounts"] if throttled else 0,
        aged=[Aged(**dict(row)) for row in aged],
        missing=missing,
        all_missing=all_missing,
    )


async def read_missing(pool: Pool) -> tuple[Sequence[Missing], int]:
    """The accounts with the most missing videos, and how many accounts have some."""
    rows = await _rows(pool, MISSING_OF_ACCOUNTS(rows=NAMED))
    missing = [Missing(row["open_id"], row["missing"], row["videos"]) for row in rows]
    return missing, rows[0]["accounts"] if rows else 0


async def list_troubled(
    pool: Pool, wanted: Wanted, page: int, *, managed: bool
) -> Sequence[Troubled]:
    """At most a page of them, in the order of open_id; `managed`: we renew access tokens."""
    bound = LIST_TROUBLED(
        state=wanted.state, reason=wanted.reason, after=wanted.after, page=page, managed=managed
    )
    return [Troubled(**dict(row)) for row in await _rows(pool, bound)]


def _counted(rows: Sequence[Record]) -> Sequence[int]:
    covers = {row["bucket"]: row["covers"] for row in rows}
    return [covers.get(bucket, 0) for bucket in range(len(EXPIRY_BOUNDS) + 1)]


async def _rows(pool: Pool, bound: Bound) -> Sequence[Record]:
    async with acquired(pool) as connection:
        rows: Sequence[Record] = await connection.fetch(*bound, timeout=REPORT_SECONDS)
    return rows
