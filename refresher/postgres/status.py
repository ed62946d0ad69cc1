"""What operators ask for: freshness, backlog, quota, replicas; and what they set."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from refresher.domain.model import OpenId
from refresher.domain.standing import Standing
from refresher.postgres.database import REPORT_SECONDS, SCAN_SECONDS, Pool, acquired
from refresher.postgres.statements import statement

STATES: Final = ("active", "paused", "needs_reauthorization", "needs_scope")

#: Videos that a summary reads. If the accounts that it has to look into have no more, and all were
#: counted before, its numbers are exact. To read ten million would take half a minute.
VIDEOS_READ: Final = 10_000
#: If they have more, it reads so many and assumes that the rest is like them. How far off that is
#: depends on the few large accounts that it meets: ten times as many videos hardly help.
VIDEOS_SAMPLED: Final = 1_000

SUMMARY: Final = statement("summary")
ISOLATED: Final = statement("isolated")
QUOTA: Final = statement("quota")
LEASES_HELD: Final = statement("leases_held")
IS_KNOWN: Final = statement("is_known")
SET_STATE: Final = statement("set_state")
NOW: Final = statement("now")
DUE_BEFORE: Final = statement("due_before")
ANY_DUE: Final = statement("any_due")
ANY_LEFT: Final = statement("any_left")
PAUSED_SINCE: Final = statement("paused_since")
PAUSE_ALL: Final = statement("pause_all")


@dataclass(frozen=True, slots=True)
class Summary:
    """Freshness of all videos.

    Where accounts with more than `VIDEOS_READ` videos together have something expired or due, their
    numbers are estimated.
    """

    #: All that are stored.
    videos: int
    #: With a cover that has not expired.
    valid: int
    #: With an expired cover that could have been kept alive.
    expired: int
    #: Without a cover so far.
    uncovered: int
    #: Left out by the last good answer, whether their cover still lives or not.
    missing: int
    #: Without a living cover, gone or of an account that is not active.
    unreachable: int
    #: To be asked for now.
    due: int
    #: For how long the first of them has been due.
    oldest_overdue_seconds: float
    #: Accounts by state.
    accounts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Quota:
    """Requests sent in this hour."""

    #: The full hour.
    since: datetime
    #: For all accounts together.
    requests: int
    #: For the account with the most.
    busiest: int


async def read_summary(pool: Pool) -> Summary:
    """Freshness now. Raises `DatabaseUnavailable`, as every function here."""
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


async def read_leases(pool: Pool) -> Mapping[str, int]:
    """How many accounts each replica works now."""
    async with acquired(pool) as connection:
        rows = await connection.fetch(*LEASES_HELD(), timeout=REPORT_SECONDS)
    return {row["replica"]: row["leases"] for row in rows}


async def count_isolated(pool: Pool) -> int:
    """Active accounts that fail while others are answered."""
    async with acquired(pool) as connection:
        isolated: int = await connection.fetchval(*ISOLATED(), timeout=REPORT_SECONDS)
    return isolated


async def is_known(pool: Pool, open_id: str) -> bool:
    """Whether the account is stored."""
    async with acquired(pool) as connection:
        known: bool = await connection.fetchval(*IS_KNOWN(open_id=open_id))
    return known


async def set_state(pool: Pool, open_id: str, state: str, reason: str | None) -> Standing | None:
    """Set the state; returns how the account stands then, None if there is none. Idempotent."""
    async with acquired(pool) as connection:
        row = await connection.fetchrow(*SET_STATE(open_id=open_id, state=state, reason=reason))
    return Standing(**dict(row)) if row else None


async def read_paused_since(pool: Pool) -> datetime | None:
    """Since when everything is paused; None: it is not."""
    async with acquired(pool) as connection:
        since: datetime | None = await connection.fetchval(*PAUSED_SINCE())
    return since


async def pause_all(pool: Pool, *, paused: bool) -> datetime | None:
    """Pause everything, or end that; returns since when it was paused before. Idempotent."""
    async with acquired(pool) as connection:
        before: datetime | None = await connection.fetchval(*PAUSE_ALL(paused=paused))
    return before


async def read_now(pool: Pool) -> datetime:
    async with acquired(pool) as connection:
        now: datetime = await connection.fetchval(*NOW())
    return now


async def count_due(pool: Pool, before: datetime) -> int:
    """How many videos were due at that time and still are, without those of paused accounts."""
    async with acquired(pool) as connection:
        count: int = await connection.fetchval(*DUE_BEFORE(before=before), timeout=SCAN_SECONDS)
    return count


async def any_due(pool: Pool, before: datetime) -> bool:
    """Whether `count_due` would count one."""
    async with acquired(pool) as connection:
        due: bool = await connection.fetchval(*ANY_DUE(before=before), timeout=SCAN_SECONDS)
    return due


async def any_left(
    pool: Pool, before: datetime, failures: int, given_up: Collection[OpenId] = ()
) -> bool:
    """Whether an active account with fewer than so many failures still has such a video.

    Accounts that were given up do not count.
    """
    async with acquired(pool) as connection:
        left: bool = await connection.fetchval(
            *ANY_LEFT(before=before, failures=failures, given_up=list(given_up)),
            timeout=SCAN_SECONDS,
        )
    return left
