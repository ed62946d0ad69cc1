"""What operators ask: freshness, backlog, accounts, quota, replicas."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from refresher.domain.model import OpenId
from refresher.domain.standing import Standing
from refresher.postgres.claims import DEAD
from refresher.postgres.database import REPORT_SECONDS, SCAN_SECONDS, Pool, connection

STATES: Final = ("active", "paused", "needs_reauthorization", "needs_scope")

#: Videos that a summary reads: where the accounts that it has to look into have no more, and none
#: was never counted, its numbers are exact. All of ten million would take half a minute.
VIDEOS_READ: Final = 10_000
#: Where they have more it reads so many and takes the rest to be like them. How far off that is
#: depends on the few large accounts among those it meets: ten times as many videos hardly help.
VIDEOS_SAMPLED: Final = 1_000
#: And no more than this share of one account, where there is more than it may read.
SHARE_OF_ONE: Final = 20

# The counts stored with an account hold until valid_until, and of one that sleeps nothing is due;
# all are added up in one pass. Only the others' videos are read.
# Nearly all the time goes into that pass, so it does little for each row: one expression, worked
# out once (OFFSET 0), tells apart whose counts hold (NULL), who was never counted, and the others.
SQL_SUMMARY: Final = f"""
WITH stored AS MATERIALIZED (
    SELECT state, uncounted, count(*) AS accounts, sum(videos) AS videos, sum(valid) AS valid,
           sum(expired) AS expired, sum(unreachable) AS unreachable,
           -- These two may be older than the others where a replica of an earlier version counts:
           -- never more than the others leave room for. least() passes over what is NULL.
           sum(least(uncovered, videos - valid - expired - unreachable)) AS uncovered,
           sum(least(missing, videos - unreachable)) AS missing,
           -- An account without videos weighs one; they are never of one kind with others.
           greatest(count(*), sum(videos)) AS weight,
           min(earliest_due_at) FILTER (WHERE uncounted IS NOT NULL) AS earliest_due_at,
           array_agg(open_id) FILTER (WHERE uncounted IS NOT NULL) AS open_ids,
           array_agg(videos) FILTER (WHERE uncounted IS NOT NULL) AS sizes
    FROM (
        SELECT open_id, state, videos, valid, expired, uncovered, missing, unreachable,
               earliest_due_at,
               CASE WHEN valid_until <= now() OR ((
                   wake_at <= now() OR earliest_due_at <= now() OR lease_expires_at IS NOT NULL
               ) AND state = 'active') THEN videos = 0 END AS uncounted
        FROM refresher.accounts
        OFFSET 0
    ) AS accounts
    GROUP BY state, uncounted
),
most AS (
    -- How many videos an account has that was never counted, nobody knows: more is read for it.
    SELECT CASE WHEN bool_or(uncounted) OR sum(weight) <= $1::integer THEN $1::integer
                ELSE $2::integer END AS of_all,
           CASE WHEN bool_or(uncounted) THEN greatest(1, $1::integer / {SHARE_OF_ONE})
                WHEN sum(weight) <= $1::integer THEN $1::integer
                ELSE greatest(1, $2::integer / {SHARE_OF_ONE}) END AS of_one
    FROM stored
    WHERE uncounted IS NOT NULL
),
sample AS MATERIALIZED (
    -- One of each kind first, then as many as may be read.
    SELECT state, uncounted, open_id, size, of_one AS at_most
    FROM (
        SELECT state, uncounted, open_id, size, of_one, of_all, place, coalesce(
                   sum(CASE WHEN uncounted THEN of_one ELSE least(size, of_one) END) OVER (
                       ORDER BY place, state, uncounted
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                   ),
                   0
               ) AS read_before
        FROM most, stored, unnest(open_ids[:of_all], sizes[:of_all])
                               WITH ORDINALITY AS account (open_id, size, place)
        WHERE uncounted IS NOT NULL
    ) AS accounts
    WHERE read_before < of_all OR place = 1
),
looked_into AS (
    SELECT s.state, s.uncounted, sum(c.videos * scale) AS videos, sum(c.valid * scale) AS valid,
           sum(c.expired * scale) AS expired, sum(c.uncovered * scale) AS uncovered,
           sum(c.missing * scale) AS missing, sum(c.unreachable * scale) AS unreachable,
           sum(c.due * scale) AS due, min(c.earliest_due_at) AS earliest_due_at,
           sum(greatest(1, s.size)) AS weight, bool_or(scale > 1) AS in_part
    FROM sample AS s
    CROSS JOIN LATERAL refresher.count_videos(s.open_id, s.at_most) AS c
    CROSS JOIN LATERAL (SELECT greatest(1, s.size::numeric / s.at_most) AS scale) AS whole
    GROUP BY 1, 2
),
counted AS (
    SELECT state, accounts, videos, valid, expired, uncovered, missing, unreachable, 0 AS due,
           NULL::timestamptz AS earliest_due_at
    FROM stored
    WHERE uncounted IS NULL
    UNION ALL
    SELECT state, s.accounts, l.videos * s.weight / l.weight, l.valid * s.weight / l.weight,
           l.expired * s.weight / l.weight, l.uncovered * s.weight / l.weight,
           l.missing * s.weight / l.weight, l.unreachable * s.weight / l.weight,
           l.due * s.weight / l.weight,
           least(l.earliest_due_at,
                 CASE WHEN l.weight < s.weight OR l.in_part THEN s.earliest_due_at END)
    FROM stored AS s JOIN looked_into AS l USING (state, uncounted)
)
SELECT state,
       sum(accounts)::bigint AS accounts,
       sum(videos)::bigint AS videos,
       sum(valid)::bigint AS valid,
       sum(CASE WHEN state = 'active' THEN expired ELSE 0 END)::bigint AS expired,
       sum(CASE WHEN state = 'active' THEN uncovered ELSE 0 END)::bigint AS uncovered,
       sum(missing)::bigint AS missing,
       sum(CASE WHEN state = 'active' THEN unreachable ELSE videos - valid END)::bigint
           AS unreachable,
       sum(CASE WHEN state = 'active' THEN due ELSE 0 END)::bigint AS due,
       CASE WHEN state = 'active' THEN
           greatest(0, extract(epoch FROM now()) - extract(epoch FROM min(earliest_due_at)))::float8
       END AS oldest_overdue_seconds
FROM counted
GROUP BY state
"""

SQL_ISOLATED: Final = """
SELECT count(*) FROM refresher.accounts WHERE isolated_since IS NOT NULL AND state = 'active'
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
SELECT open_id, state, state_reason, state_since, isolated_reason, isolated_since, videos, valid,
       access_token_expires_at,
       CASE WHEN state = 'active' AND isfinite(wake_at) THEN wake_at END AS wake_at
FROM refresher.accounts
ORDER BY open_id
"""

# Whoever resumes an account means now: the back-off of its token ends, too. What is not waited out
# at will stays: the pause after a 429, and a token request whose outcome may still be stored.
SQL_SET_STATE: Final = f"""
WITH before AS MATERIALIZED (
    SELECT open_id, state, state_since
    FROM refresher.accounts
    WHERE open_id = $1
    FOR NO KEY UPDATE
)
UPDATE refresher.accounts AS a
SET state = $2,
    state_reason = $3,
    state_since = CASE WHEN a.state = $2 THEN a.state_since ELSE now() END,
    token_due_at = CASE WHEN $2 = 'active' AND a.token_failures > 0
                        THEN least(a.token_due_at, now()) ELSE a.token_due_at END,
    -- To resume it is to try it anew; one that is in work has slots of its own.
    isolated_since = CASE WHEN $2 <> 'active' THEN a.isolated_since END,
    isolated_reason = CASE WHEN $2 <> 'active' THEN a.isolated_reason END,
    failures = CASE WHEN $2 = 'active' AND a.isolated_since IS NOT NULL THEN 0
                    ELSE a.failures END,
    next_slot_at = CASE WHEN $2 = 'active' AND a.isolated_since IS NOT NULL
                             AND coalesce(a.lease_expires_at, now()) <= now()
                        THEN least(a.next_slot_at, now()) ELSE a.next_slot_at END,
    wake_at = CASE WHEN a.lease_expires_at > now() THEN a.wake_at ELSE least(a.wake_at, now()) END
FROM before
WHERE a.open_id = before.open_id
RETURNING before.state AS was, a.state AS is_, before.state_since AS since, now() AS now,
          coalesce(a.lease_expires_at > now(), false) AS leased,
          greatest(a.next_slot_at, a.token_request_until, now()) AS free_at,
          a.refresh_token IS NOT NULL AS refreshable,
          a.token_due_at <= now() AS token_due,
          {DEAD} AS token_dead
"""

SQL_NOW: Final = "SELECT now()"

# A scan of all videos: for `once`, which is about to ask for them anyway.
SQL_DUE_BEFORE: Final = """
SELECT count(*)
FROM refresher.videos AS v JOIN refresher.accounts AS a USING (open_id)
WHERE v.due_at <= $1 AND a.state <> 'paused'
"""

# A pause after 429s is waited for, one for a day's quota or of an isolated account is not.
SQL_ANY_LEFT: Final = f"""
SELECT EXISTS (
    SELECT FROM refresher.accounts AS a
    WHERE a.state = 'active'
      AND a.failures < $2
      AND (a.lease_expires_at > now() OR a.next_slot_at <= now() + interval '2 minutes')
      AND a.open_id <> ALL ($3)
      AND NOT (a.token_failures > 0 AND {DEAD}
               AND (a.token_failures >= $2 OR a.token_due_at > now() + interval '1 minute'))
      AND EXISTS (
          SELECT FROM refresher.videos AS v WHERE v.open_id = a.open_id AND v.due_at <= $1
      )
)
"""


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
    async with connection(pool) as taken:
        rows = await taken.fetch(SQL_SUMMARY, VIDEOS_READ, VIDEOS_SAMPLED, timeout=REPORT_SECONDS)

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
    async with connection(pool) as taken:
        row = await taken.fetchrow(SQL_QUOTA, timeout=REPORT_SECONDS)
    assert row is not None  # noqa: S101 - an aggregate always has its row
    return Quota(row["since"], row["requests"], row["busiest"])


async def read_replicas(pool: Pool) -> Mapping[str, int]:
    """The accounts leased just now, by replica."""
    async with connection(pool) as taken:
        rows = await taken.fetch(SQL_REPLICAS, timeout=REPORT_SECONDS)
    return {row["replica"]: row["leases"] for row in rows}


async def count_isolated(pool: Pool) -> int:
    """Active accounts that fail while others are answered."""
    async with connection(pool) as taken:
        isolated: int = await taken.fetchval(SQL_ISOLATED, timeout=REPORT_SECONDS)
    return isolated


async def list_accounts(pool: Pool) -> Sequence[Account]:
    async with connection(pool) as taken:
        rows = await taken.fetch(SQL_ACCOUNTS, timeout=REPORT_SECONDS)
    return [Account(**dict(row)) for row in rows]


async def set_state(pool: Pool, open_id: str, state: str, reason: str | None) -> Standing | None:
    """How the account stands then; None: there is no such account. Idempotent."""
    async with connection(pool) as taken:
        row = await taken.fetchrow(SQL_SET_STATE, open_id, state, reason)
    return Standing(**dict(row)) if row else None


async def read_now(pool: Pool) -> datetime:
    async with connection(pool) as taken:
        now: datetime = await taken.fetchval(SQL_NOW)
    return now


async def count_due(pool: Pool, before: datetime) -> int:
    """How many videos of accounts that are not paused were due at a time and still are."""
    async with connection(pool) as taken:
        count: int = await taken.fetchval(SQL_DUE_BEFORE, before, timeout=SCAN_SECONDS)
    return count


async def any_left(
    pool: Pool, before: datetime, failures: int, given_up: Collection[OpenId] = ()
) -> bool:
    """Whether an active account that failed less often than that still has such a video.

    Another one than those that were given up.
    """
    async with connection(pool) as taken:
        left: bool = await taken.fetchval(
            SQL_ANY_LEFT, before, failures, list(given_up), timeout=SCAN_SECONDS
        )
    return left
