"""A slow walk through all accounts that puts right what drifted, so that none sleeps for ever."""

from collections.abc import Sequence
from typing import Final

from asyncpg import Record

from refresher.domain.model import OpenId
from refresher.domain.pacing import LONGEST_RETRY_SECONDS
from refresher.postgres.claims import ASSUMED_VIDEOS, TOKEN_WAKE_AT
from refresher.postgres.database import REPORT_SECONDS, Pool, connection
from refresher.postgres.parts import REFUSALS, Refused, in_parts

AUDIT_SECONDS: Final = 10.0
#: Steps of one walk: with a step every ten seconds it takes an hour, less with more replicas.
WALK_STEPS: Final = 360
#: And longer where a step would have to read more videos: five hours for ten million.
VIDEOS_READ: Final = 5_000

# A batch of the walk, which goes on behind it.
BATCH: Final = f"""
walk AS MATERIALIZED (
    SELECT audited_to,
           greatest(20, (SELECT reltuples FROM pg_class
                         WHERE oid = 'refresher.accounts'::regclass) / $1)::integer AS step
    FROM refresher.audit
    FOR UPDATE SKIP LOCKED
),
batch AS MATERIALIZED (
    SELECT open_id
    FROM (
        SELECT open_id, sum(videos) OVER (ORDER BY open_id) - videos AS read_before
        FROM (
            SELECT a.open_id, CASE a.videos WHEN 0 THEN {ASSUMED_VIDEOS} ELSE a.videos END AS videos
            FROM refresher.accounts AS a
            WHERE a.open_id > (SELECT audited_to FROM walk)
            ORDER BY a.open_id
            LIMIT (SELECT step FROM walk)
        ) AS next
    ) AS reading
    WHERE read_before < $2
),
walked AS (
    UPDATE refresher.audit AS a
    SET audited_to = coalesce((SELECT max(open_id) FROM batch), '')
    FROM walk
)
"""
# What is stored of a batch.
MEND: Final = f"""
impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
),
held AS MATERIALIZED (
    -- An account that is being worked gets its counts from its release. Not locked: a claim would
    -- pass by what is being counted.
    SELECT a.open_id, a.lease_epoch, a.wake_at,
           {TOKEN_WAKE_AT.format(managed="$4", due="a.token_due_at")} AS token_wake_at
    FROM refresher.accounts AS a
    -- As an array, here and below: a join would be planned as one of all accounts.
    WHERE a.open_id = ANY (ARRAY(SELECT open_id FROM batch))
      AND (a.lease_expires_at IS NULL OR a.lease_expires_at <= now())
),
counted AS MATERIALIZED (
    SELECT h.open_id, h.lease_epoch, h.wake_at, c.*,
           greatest(least(c.earliest_due_at, h.token_wake_at), now()) AS should_wake_at
    FROM held AS h CROSS JOIN LATERAL refresher.count_videos(h.open_id, NULL) AS c
),
mended AS (
    SELECT a.open_id, c.should_wake_at,
           extract(epoch FROM a.wake_at) - extract(epoch FROM c.should_wake_at) AS overslept
    FROM counted AS c JOIN refresher.accounts AS a USING (open_id)
    WHERE a.open_id = ANY (ARRAY(SELECT open_id FROM counted))
      -- A back-off is no drift.
      AND a.state = 'active' AND isfinite(c.should_wake_at)
      -- In seconds: at the end of its range a time has none that is later.
      AND a.wake_at > greatest(c.should_wake_at, a.next_slot_at)
      AND extract(epoch FROM a.wake_at)
          - extract(epoch FROM greatest(c.should_wake_at, a.next_slot_at)) > $3::float8
),
drifted AS MATERIALIZED (
    -- Locked for as long as it takes to write them, and only what is still as it was counted: who
    -- was claimed or woken meanwhile knows better.
    SELECT a.open_id
    FROM refresher.accounts AS a
    JOIN counted AS c USING (open_id)
    LEFT JOIN mended AS m USING (open_id)
    WHERE a.open_id = ANY (ARRAY(SELECT open_id FROM counted))
      AND (a.lease_epoch, a.wake_at) = (c.lease_epoch, c.wake_at)
      AND (m.open_id IS NOT NULL
           OR (a.videos, a.valid, a.expired, a.uncovered, a.missing, a.unreachable, a.valid_until,
               a.earliest_due_at)
              IS DISTINCT FROM
              (c.videos, c.valid, c.expired, c.uncovered, c.missing, c.unreachable, c.valid_until,
               c.earliest_due_at))
    ORDER BY a.open_id
    FOR UPDATE OF a SKIP LOCKED
),
updated AS (
    UPDATE refresher.accounts AS a
    SET videos = c.videos,
        valid = c.valid,
        expired = c.expired,
        uncovered = c.uncovered,
        missing = c.missing,
        unreachable = c.unreachable,
        valid_until = c.valid_until,
        earliest_due_at = c.earliest_due_at,
        wake_at = least(a.wake_at, m.should_wake_at)
    FROM counted AS c LEFT JOIN mended AS m USING (open_id)
    WHERE a.open_id = c.open_id
      AND a.open_id = ANY (ARRAY(SELECT open_id FROM drifted))
      AND (SELECT count(*) FROM impatient) > 0
    RETURNING a.open_id
)
SELECT open_id, nullif(overslept::float8, 'infinity') AS overslept_seconds
FROM mended JOIN updated USING (open_id)
"""

SQL_AUDIT: Final = f"WITH {BATCH}, {MEND}"

# Where one account spoils it for the others: the walk alone, and then part by part.
SQL_WALK: Final = f"WITH {BATCH} SELECT open_id FROM batch"
SQL_AUDIT_PART: Final = f"""
WITH batch AS MATERIALIZED (
    -- No batch is of more.
    SELECT open_id FROM unnest($1::text[]) AS open_id LIMIT $2
), {MEND}
"""


async def audit_step(
    pool: Pool,
    *,
    managed: bool = False,
    refused: Refused = lambda _, __: None,
) -> Sequence[tuple[OpenId, float | None]]:
    """One step of the walk; the accounts that would have slept too long, None for ever.

    `managed`: an account must wake for its token, too. `refused` hears of accounts whose rows could
    not be written for what a trigger, a constraint or a lock of theirs does.

    Raises `DatabaseUnavailable`.
    """
    try:
        rows = await _fetch(
            pool, SQL_AUDIT, WALK_STEPS, VIDEOS_READ, LONGEST_RETRY_SECONDS, managed
        )
    except REFUSALS:
        batch = await _fetch(pool, SQL_WALK, WALK_STEPS, VIDEOS_READ)

        async def audit_part(open_ids: Sequence[OpenId]) -> Sequence[Record]:
            return await _fetch(
                pool, SQL_AUDIT_PART, open_ids, VIDEOS_READ, LONGEST_RETRY_SECONDS, managed
            )

        rows = await in_parts([OpenId(row["open_id"]) for row in batch], audit_part, refused)
    return [(OpenId(row["open_id"]), row["overslept_seconds"]) for row in rows]


async def _fetch(pool: Pool, statement: str, *values: object) -> Sequence[Record]:
    async with connection(pool) as taken:
        rows: Sequence[Record] = await taken.fetch(statement, *values, timeout=REPORT_SECONDS)
    return rows
