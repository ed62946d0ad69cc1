"""Claiming due accounts under a lease and giving them back with their next wake-up."""

from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from typing import Final

from asyncpg import Record

from refresher.domain.model import Claim, OpenId, Release, Released, Video, VideoId
from refresher.domain.pacing import DatabaseTime, step_seconds
from refresher.postgres.database import Pool, available

#: How far ahead a claim reserves slots of one account: short, so that a huge one cannot hold the
#: queue, and well inside the lease.
HORIZON_SECONDS: Final = 5.0
#: With a limit for the whole app its slots are shared out in the order of claims, so a claim must
#: not reach far. A chunk may be sent twice that after its place among them, where its account both
#: starts late and paces its chunks; the app's slots lie this much wider apart to make up for it.
APP_HORIZON_SECONDS: Final = 0.75
APP_REACH_SECONDS: Final = 2 * APP_HORIZON_SECONDS
#: Videos that a claim reads before it takes no further account.
ROWS_READ: Final = 20_000

# One round trip. Times are decided by the database's clock; the chunks are counted out of a budget
# so that whatever the replica cannot take on stays claimable for others.
SQL_CLAIM: Final = """
WITH picked AS MATERIALIZED (
    -- FOR UPDATE, as it conflicts with the key-share lock of an insert into videos that has not
    -- been committed: that account waits for it rather than miss its wake-up.
    SELECT open_id, wake_at, next_slot_at, greatest(videos, 1) AS videos
    FROM refresher.accounts
    WHERE state = 'active'
      AND wake_at <= now()
      AND (lease_expires_at IS NULL OR lease_expires_at <= now())
      AND next_slot_at <= now() + $3::interval
    ORDER BY wake_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),
affordable AS (
    -- By the counts of their last release: a few huge accounts, or many small ones.
    SELECT *
    FROM (
        SELECT *, sum(videos) OVER (ORDER BY wake_at, open_id ROWS UNBOUNDED PRECEDING) AS read
        FROM picked
    ) AS reading
    WHERE read - videos < $8
),
asked AS MATERIALIZED (
    -- LATERAL with a window: each account's rows are read once, by the primary key, whatever the
    -- planner thinks of the number of accounts. Due videos first, topped up to full chunks; a
    -- video whose last answer brought no cover is no top-up: it might spoil the others' request.
    SELECT p.open_id, p.wake_at, p.next_slot_at, own.*
    FROM affordable AS p
    CROSS JOIN LATERAL (
        SELECT array_agg(video_id) AS video_ids,
               array_agg(due_at) AS due_ats,
               array_agg(expires_at) AS expires_ats,
               array_agg(misses) AS misses,
               array_agg(missing) AS missing,
               ceil(count(*) / 20.0)::integer AS chunks
        FROM (
            SELECT video_id, due_at, misses,
                   CASE WHEN cover_image_url IS NOT NULL THEN cover_expires_at END AS expires_at,
                   missing_since IS NOT NULL AS missing,
                   row_number() OVER (ORDER BY due_at, video_id) AS place,
                   count(*) FILTER (WHERE due_at <= now()) OVER () AS due
            FROM refresher.videos
            WHERE open_id = p.open_id AND (due_at <= now() OR misses = 0)
            ORDER BY place
        ) AS ordered
        WHERE place <= 20 * least(ceil(due / 20.0), $4)
    ) AS own
),
app AS MATERIALIZED (
    SELECT next_slot_at FROM refresher.app WHERE $6::interval > '0' FOR UPDATE
),
start AS MATERIALIZED (
    -- After the reading, however long it took: a slot must not lie in the past.
    SELECT clock_timestamp() AS at,
           (SELECT greatest(next_slot_at, clock_timestamp()) FROM app) AS app_at
    FROM (SELECT count(*) FROM asked) AS read_first, (SELECT count(*) FROM app) AS locked_first
),
budget AS (
    SELECT least($1, ceil(
        extract(epoch FROM at + $3::interval - app_at) / nullif(extract(epoch FROM $6::interval), 0)
    ))::integer AS chunks
    FROM start
),
counted AS (
    SELECT *, coalesce(
        sum(chunks) OVER (
            ORDER BY wake_at, open_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ),
        0
    )::integer AS chunks_before
    FROM asked
),
granted AS MATERIALIZED (
    SELECT counted.*,
           least(counted.chunks, budget.chunks - chunks_before) AS granted_chunks,
           greatest(
               next_slot_at, start.at, start.app_at + chunks_before * $6::interval
           ) AS first_slot
    FROM counted, budget, start
    WHERE chunks_before < budget.chunks
),
spent AS (
    UPDATE refresher.app
    SET next_slot_at = start.app_at
        + (SELECT coalesce(sum(granted_chunks), 0) FROM granted) * $6::interval
    FROM start
    WHERE start.app_at IS NOT NULL
),
leased AS (
    UPDATE refresher.accounts AS a
    SET lease_owner = $2,
        lease_epoch = a.lease_epoch + 1,
        lease_expires_at = now() + $7::interval,
        -- So a crashed replica's account is due again when its lease has run out.
        wake_at = now() + $7::interval,
        next_slot_at = CASE
            WHEN g.granted_chunks = 0 THEN a.next_slot_at
            ELSE g.first_slot + g.granted_chunks * $5::interval
        END
    FROM granted AS g
    WHERE a.open_id = g.open_id
    RETURNING a.open_id, a.access_token, a.lease_epoch, a.lease_expires_at, a.failures
)
SELECT l.*, g.first_slot, now() AS now,
       g.video_ids[:20 * g.granted_chunks] AS video_ids,
       g.due_ats[:20 * g.granted_chunks] AS due_ats,
       g.expires_ats[:20 * g.granted_chunks] AS expires_ats,
       g.misses[:20 * g.granted_chunks] AS misses,
       g.missing[:20 * g.granted_chunks] AS missing
FROM leased AS l JOIN granted AS g USING (open_id)
"""

# An account whose row somebody else has locked is left out rather than waited for; it is tried
# again, and its lease runs out in any case. A stale epoch is somebody else's lease: left alone.
SQL_RELEASE: Final = """
WITH held AS MATERIALIZED (
    SELECT r.*,
           -- Parked for a token that has been replaced meanwhile? Then it is not parked.
           r.park_state IS NOT NULL AND a.state = 'active'
               AND a.access_token IS NOT DISTINCT FROM r.park_token AS parked
    FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::float8[], $5::float8[],
                $6::text[], $7::text[], $8::text[], $9::integer[])
         AS r (open_id, lease_epoch, failures, retry_seconds, pause_seconds,
               park_state, park_reason, park_token, requests)
    JOIN refresher.accounts AS a
      ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    ORDER BY r.open_id
    FOR UPDATE OF a SKIP LOCKED
),
counted AS MATERIALIZED (
    SELECT h.*, c.*
    FROM held AS h CROSS JOIN LATERAL refresher.count_covers(h.open_id) AS c
)
UPDATE refresher.accounts AS a
SET lease_owner = NULL,
    lease_expires_at = NULL,
    failures = c.failures,
    next_slot_at = greatest(a.next_slot_at, now() + c.pause_seconds * interval '1 second'),
    -- Lower than the end of the lease: somebody inserted videos meanwhile; that wish is kept.
    wake_at = greatest(
        CASE WHEN a.wake_at < a.lease_expires_at
             THEN least(a.wake_at, c.earliest_due_at) ELSE c.earliest_due_at END,
        now() + greatest(c.retry_seconds, c.pause_seconds) * interval '1 second'
    ),
    requests_since = date_trunc('hour', now()),
    requests = c.requests
        + CASE WHEN a.requests_since = date_trunc('hour', now()) THEN a.requests ELSE 0 END,
    videos = c.videos,
    valid = c.valid,
    expired = c.expired,
    unreachable = c.unreachable,
    valid_until = c.valid_until,
    earliest_due_at = c.earliest_due_at,
    state = CASE WHEN c.parked THEN c.park_state ELSE a.state END,
    state_reason = CASE WHEN c.parked THEN c.park_reason ELSE a.state_reason END,
    state_since = CASE WHEN c.parked THEN now() ELSE a.state_since END
FROM counted AS c
WHERE a.open_id = c.open_id
-- Not the difference of the two: before PostgreSQL 17 infinity has none.
RETURNING a.open_id, c.parked,
          (extract(epoch FROM greatest(a.wake_at, a.next_slot_at))
           - extract(epoch FROM now()))::float8 AS wake_in_seconds
"""


class Claims:
    """The accounts' leases and slots, for one replica. Raises `DatabaseUnavailable`."""

    def __init__(
        self,
        pool: Pool,
        *,
        replica: str,
        lease_seconds: float,
        rate_limit_per_token: int,
        rate_limit_per_app: int,
    ) -> None:
        self._pool = pool
        self._replica = replica
        self._lease = timedelta(seconds=lease_seconds)
        self._app_step = step_seconds(rate_limit_per_app, reach_seconds=APP_REACH_SECONDS)
        self._step = max(step_seconds(rate_limit_per_token), self._app_step)
        longest = APP_HORIZON_SECONDS if self._app_step else HORIZON_SECONDS
        self._horizon = min(longest, lease_seconds / 4)

    async def claim(self, chunk_budget: int) -> Sequence[Claim]:
        """Lease the due accounts that have waited longest, at most `chunk_budget` chunks in all."""
        chunks_each = max(1, int(self._horizon / self._step)) if self._step else chunk_budget
        with available():
            async with self._pool.acquire() as connection:
                sent = monotonic()
                rows = await connection.fetch(
                    SQL_CLAIM,
                    chunk_budget,
                    self._replica,
                    timedelta(seconds=self._horizon),
                    chunks_each,
                    timedelta(seconds=self._step),
                    timedelta(seconds=self._app_step),
                    self._lease,
                    ROWS_READ,
                )
        return [_claim(row, self._step, sent) for row in rows]

    async def release(self, releases: Sequence[Release]) -> Sequence[Released | None]:
        """Give leases back; None where the row is locked just now or the lease is over.

        Try those again until their lease has run out.
        """
        parks = [release.park for release in releases]
        with available():
            rows = await self._pool.fetch(
                SQL_RELEASE,
                [release.open_id for release in releases],
                [release.lease_epoch for release in releases],
                [release.failures for release in releases],
                [release.retry_seconds for release in releases],
                [release.pause_seconds for release in releases],
                [park and park.state for park in parks],
                [park and park.reason for park in parks],
                [park and park.access_token for park in parks],
                [release.requests for release in releases],
            )
        released = {row["open_id"]: Released(row["parked"], row["wake_in_seconds"]) for row in rows}
        return [released.get(release.open_id) for release in releases]


def _claim(row: Record, step: float, sent: float) -> Claim:
    columns = ("video_ids", "due_ats", "expires_ats", "misses", "missing")
    videos = [
        Video(VideoId(video_id), due_at, expires_at, misses, missing)
        for video_id, due_at, expires_at, misses, missing in zip(
            *(row[column] or () for column in columns), strict=True
        )
    ]
    return Claim(
        open_id=OpenId(row["open_id"]),
        access_token=row["access_token"],
        lease_epoch=row["lease_epoch"],
        lease_expires_at=row["lease_expires_at"],
        failures=row["failures"],
        videos=videos,
        first_slot=row["first_slot"],
        step_seconds=step,
        # The transaction began when the statement arrived; a slow commit makes slots late, not
        # early, and the lease shorter, not longer.
        time=DatabaseTime(row["now"], sent),
    )
