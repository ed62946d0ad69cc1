-- Revision 0001, refresher/postgres/claims.py
WITH held AS MATERIALIZED (
    SELECT r.*,
           -- Parked for a token that has been replaced meanwhile? Then it is not parked.
           r.park_state IS NOT NULL AND a.state = 'active'
               AND a.access_token IS NOT DISTINCT FROM r.park_token AS parked
    FROM unnest(:open_ids::text[], :lease_epochs::bigint[], :failures::integer[], :retry_seconds::float8[], :pause_seconds::float8[],
                :park_states::text[], :park_reasons::text[], :park_tokens::text[], :requests::integer[])
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
