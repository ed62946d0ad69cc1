"""What operators ask: freshness, backlog, accounts, quota, replicas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from refresher.domain.model import OpenId
from refresher.postgres.claims import DEAD
from refresher.postgres.database import REPORT_SECONDS, SCAN_SECONDS, Pool, connection

STATES: Final = ("active", "paused", "needs_reauthorization", "needs_scope")

# The counts stored with an account hold until valid_until; only of accounts past that, or with
# something due, are the videos read. Two branches rather than a LEFT JOIN, which would read all.
SQL_SUMMARY: Final = """
WITH counted AS (
    SELECT state, videos, valid, expired, unreachable,
           0 AS due, NULL::timestamptz AS earliest_due_at
    FROM refresher.accounts
    WHERE valid_until > now()
      AND (state <> 'active'
           OR (wake_at > now() AND earliest_due_at > now() AND lease_expires_at IS NULL))
    UNION ALL
    SELECT a.state, c.videos, c.valid, c.expired, c.unreachable, c.due, c.earliest_due_at
    FROM refresher.accounts AS a CROSS JOIN LATERAL refresher.count_covers(a.open_id) AS c
    WHERE a.valid_until <= now()
       OR (a.state = 'active'
           AND (a.wake_at <= now() OR a.earliest_due_at <= now() OR a.lease_expires_at IS NOT NULL))
)
SELECT state,
       count(*) AS accounts,
       sum(videos) AS videos,
       sum(valid) AS valid,
       sum(CASE WHEN state = 'active' THEN expired ELSE 0 END) AS expired,
       sum(CASE WHEN state = 'active' THEN unreachable ELSE videos - valid END) AS unreachable,
       sum(CASE WHEN state = 'active' THEN due ELSE 0 END) AS due,
       CASE WHEN state = 'active' THEN
           greatest(0, extract(epoch FROM now()) - extract(epoch FROM min(earliest_due_at)))::float8
       END AS oldest_overdue_seconds
FROM counted
GROUP BY state
"""

SQL_QUOTA: Final = """
SELECT coalesce(sum(requests), 0) AS requests, coalesce(max(requests), 0) AS busiest,
       date_trunc('hour', now()) AS since
FROM refresher.accounts
WHERE requests_since = date_trunc('hour', now())
"""

SQL_REPLICAS: Final = """
SELECT lease_owner AS replica, count(*) AS leases
FROM refresher.accounts
WHERE lease_expires_at > now()
GROUP BY lease_owner
ORDER BY lease_owner
"""

SQL_ACCOUNTS: Final = """
SELECT open_id, state, state_reason, state_since, videos, valid, access_token_expires_at,
       CASE WHEN state = 'active' AND isfinite(wake_at) THEN wake_at END AS wake_at
FROM refresher.accounts
ORDER BY open_id
"""

SQL_SET_STATE: Final = """
UPDATE refresher.accounts
SET state = $2,
    state_reason = $3,
    state_since = CASE WHEN state = $2 THEN state_since ELSE now() END,
    wake_at = CASE WHEN lease_expires_at > now() THEN wake_at ELSE least(wake_at, now()) END
WHERE open_id = $1
"""

SQL_NOW: Final = "SELECT now()"

# A scan of all videos: for `once`, which is about to ask for them anyway.
SQL_DUE_BEFORE: Final = """
SELECT count(*)
FROM refresher.videos AS v JOIN refresher.accounts AS a USING (open_id)
WHERE v.due_at <= $1 AND a.state <> 'paused'
"""

SQL_ANY_LEFT: Final = f"""
SELECT EXISTS (
    SELECT FROM refresher.accounts AS a
    WHERE a.state = 'active'
      AND a.failures < $2
      AND NOT (a.token_failures > 0 AND {DEAD}
               AND (a.token_failures >= $2 OR a.token_due_at > now() + interval '1 minute'))
      AND EXISTS (
          SELECT FROM refresher.videos AS v WHERE v.open_id = a.open_id AND v.due_at <= $1
      )
)
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """Freshness, in one look. `accounts` counts them by state."""

    videos: int
    valid: int
    expired: int
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
    """A line of `accounts list`. `wake_at` is None for an account that will not wake by itself."""

    open_id: OpenId
    state: str
    state_reason: str | None
    state_since: datetime
    videos: int
    valid: int
    access_token_expires_at: datetime | None
    wake_at: datetime | None


async def read_summary(pool: Pool) -> Summary:
    """Raises `DatabaseUnavailable`, as all in this file."""
    async with connection(pool) as taken:
        rows = await taken.fetch(SQL_SUMMARY, timeout=REPORT_SECONDS)

    def total(column: str) -> int:
        return sum(int(row[column]) for row in rows)

    overdue = (row["oldest_overdue_seconds"] or 0.0 for row in rows)
    return Summary(
        videos=total("videos"),
        valid=total("valid"),
        expired=total("expired"),
        unreachable=total("unreachable"),
        due=total("due"),
        oldest_overdue_seconds=round(max(overdue, default=0.0), 1),
        accounts=dict.fromkeys(STATES, 0) | {row["state"]: row["accounts"] for row in rows},
    )


async def read_quota(pool: Pool) -> Quota:
    async with connection(pool) as taken:
        row = await taken.fetchrow(SQL_QUOTA, timeout=REPORT_SECONDS)
    assert row is not None  # noqa: S101 - an aggregate always has its row
    return Quota(row["since"], row["requests"], row["busiest"])


async def read_replicas(pool: Pool) -> Mapping[str, int]:
    """The accounts leased just now, by replica."""
    async with connection(pool) as taken:
        rows = await taken.fetch(SQL_REPLICAS, timeout=REPORT_SECONDS)
    return {row["replica"]: row["leases"] for row in rows}


async def list_accounts(pool: Pool) -> Sequence[Account]:
    async with connection(pool) as taken:
        rows = await taken.fetch(SQL_ACCOUNTS, timeout=REPORT_SECONDS)
    return [Account(**dict(row)) for row in rows]


async def set_state(pool: Pool, open_id: str, state: str, reason: str | None) -> bool:
    """False: there is no such account."""
    async with connection(pool) as taken:
        return bool(await taken.execute(SQL_SET_STATE, open_id, state, reason) == "UPDATE 1")


async def read_now(pool: Pool) -> datetime:
    async with connection(pool) as taken:
        now: datetime = await taken.fetchval(SQL_NOW)
    return now


async def count_due(pool: Pool, before: datetime) -> int:
    """How many videos of accounts that are not paused were due at a time and still are."""
    async with connection(pool) as taken:
        count: int = await taken.fetchval(SQL_DUE_BEFORE, before, timeout=SCAN_SECONDS)
    return count


async def any_left(pool: Pool, before: datetime, failures: int) -> bool:
    """Whether an active account that failed less often than that still has such a video."""
    async with connection(pool) as taken:
        left: bool = await taken.fetchval(SQL_ANY_LEFT, before, failures, timeout=SCAN_SECONDS)
    return left
