"""What operators ask: freshness, backlog, accounts, quota, replicas."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from refresher.domain.model import OpenId
from refresher.domain.standing import Standing
from refresher.postgres.database import REPORT_SECONDS, SCAN_SECONDS, Pool, acquired
from refresher.postgres.statements import statement

STATES: Final = ("active", "paused", "needs_reauthorization", "needs_scope")

#: Videos that a summary reads: where the accounts that it has to look into have no more, and none
#: was never counted, its numbers are exact. All of ten million would take half a minute.
VIDEOS_READ: Final = 10_000
#: Where they have more it reads so many and takes the rest to be like them. How far off that is
#: depends on the few large accounts among those it meets: ten times as many videos hardly help.
VIDEOS_SAMPLED: Final = 1_000

SUMMARY: Final = statement("summary")
ISOLATED: Final = statement("isolated")
QUOTA: Final = statement("quota")
REPLICAS: Final = statement("replicas")
ACCOUNTS: Final = statement("accounts")
SET_STATE: Final = statement("set_state")
NOW: Final = statement("now")
DUE_BEFORE: Final = statement("due_before")
ANY_LEFT: Final = statement("any_left")


@dataclass(frozen=True, slots=True)
class Summary:
    """Freshness, in one look. `accounts` counts them by state.

    What can be kept alive is `valid`, `expired`, or `uncovered`: without a cover so far. `missing`
    are videos that the last good answer left out, with a living cover or a dead one.

    What expires or is due in accounts of more than `VIDEOS_READ` videos together is estimated.
    """

    videos: int
    valid: int
    expired: int
    uncovered: int
    missing: int
    unreachable: int
    due: int
    oldest_overdue_seconds: float
    accounts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Quota:
    """Requests sent since the full hour, in all and to the busiest account."""

    since: datetime
    requests: int
    busiest: int


@dataclass(frozen=True, slots=True)
class Account:
    """A line of `accounts list`. `wake_at` is None for an account that will not wake by itself.

    An account that fails while others are answered is isolated, whatever its state.
    """

    open_id: OpenId
    state: str
    state_reason: str | None
    state_since: datetime
    isolated_reason: str | None
    isolated_since: datetime | None
    videos: int
    valid: int
    access_token_expires_at: datetime | None
    wake_at: datetime | None


async def read_summary(pool: Pool) -> Summary:
    """Raises `DatabaseUnavailable`, as all in this file."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(
            *SUMMARY(videos_read=VIDEOS_READ, videos_sampled=VIDEOS_SAMPLED),
            timeout=REPORT_SECONDS,
        )

    def total(column: str) -> int:
        return sum(int(row[column]) for row in rows)

    overdue = (row["oldest_overdue_seconds"] or 0.0 for row in rows)
    return Summary(
        videos=total("videos"),
        valid=total("valid"),
        expired=total("expired"),
        uncovered=total("uncovered"),
        missing=total("missing"),
        unreachable=total("unreachable"),
        due=total("due"),
        oldest_overdue_seconds=round(max(overdue, default=0.0), 1),
        accounts=dict.fromkeys(STATES, 0) | {row["state"]: row["accounts"] for row in rows},
    )


async def read_quota(pool: Pool) -> Quota:
    async with acquired(pool) as connection:
        row = await connection.fetchrow(*QUOTA(), timeout=REPORT_SECONDS)
    assert row is not None  # noqa: S101 - an aggregate always has its row
    return Quota(row["since"], row["requests"], row["busiest"])


async def read_replicas(pool: Pool) -> Mapping[str, int]:
    """The accounts leased just now, by replica."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*REPLICAS(), timeout=REPORT_SECONDS)
    return {row["replica"]: row["leases"] for row in rows}


async def count_isolated(pool: Pool) -> int:
    """Active accounts that fail while others are answered."""
    async with acquired(pool) as connection:
        isolated: int = await connection.fetchval(*ISOLATED(), timeout=REPORT_SECONDS)
    return isolated


async def list_accounts(pool: Pool) -> Sequence[Account]:
    async with acquired(pool) as connection:
        rows = await connection.fetch(*ACCOUNTS(), timeout=REPORT_SECONDS)
    return [Account(**dict(row)) for row in rows]


async def set_state(pool: Pool, open_id: str, state: str, reason: str | None) -> Standing | None:
    """How the account stands then; None: there is no such account. Idempotent."""
    async with acquired(pool) as connection:
        row = await connection.fetchrow(*SET_STATE(open_id=open_id, state=state, reason=reason))
    return Standing(**dict(row)) if row else None


async def read_now(pool: Pool) -> datetime:
    async with acquired(pool) as connection:
        now: datetime = await connection.fetchval(*NOW())
    return now


async def count_due(pool: Pool, before: datetime) -> int:
    """How many videos of accounts that are not paused were due at a time and still are."""
    async with acquired(pool) as connection:
        count: int = await connection.fetchval(*DUE_BEFORE(before=before), timeout=SCAN_SECONDS)
    return count


async def any_left(
    pool: Pool, before: datetime, failures: int, given_up: Collection[OpenId] = ()
) -> bool:
    """Whether an active account that failed less often than that still has such a video.

    Another one than those that were given up.
    """
    async with acquired(pool) as connection:
        left: bool = await connection.fetchval(
            *ANY_LEFT(before=before, failures=failures, given_up=list(given_up)),
            timeout=SCAN_SECONDS,
        )
    return left
