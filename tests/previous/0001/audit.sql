-- Revision 0001, refresher/postgres/audit.py
WITH walk AS MATERIALIZED (
    SELECT audited_to,
           greatest(20, (SELECT reltuples FROM pg_class
                         WHERE oid = 'refresher.accounts'::regclass) / :walk_steps)::integer AS step
    FROM refresher.audit
    FOR UPDATE SKIP LOCKED
),
batch AS MATERIALIZED (
    SELECT a.open_id
    FROM refresher.accounts AS a
    WHERE a.open_id > (SELECT audited_to FROM walk)
    ORDER BY a.open_id
    LIMIT (SELECT step FROM walk)
),
walked AS (
    UPDATE refresher.audit AS a
    SET audited_to = coalesce((SELECT max(open_id) FROM batch), '')
    FROM walk
),
held AS MATERIALIZED (
    -- An account that is being worked gets its counts from its release.
    SELECT a.open_id
    FROM refresher.accounts AS a JOIN batch USING (open_id)
    WHERE a.lease_expires_at IS NULL OR a.lease_expires_at <= now()
    ORDER BY a.open_id
    FOR UPDATE OF a SKIP LOCKED
),
counted AS MATERIALIZED (
    SELECT h.open_id, c.*, greatest(c.earliest_due_at, now()) AS should_wake_at
    FROM held AS h CROSS JOIN LATERAL refresher.count_covers(h.open_id) AS c
),
mended AS (
    SELECT a.open_id, c.should_wake_at,
           extract(epoch FROM a.wake_at) - extract(epoch FROM c.should_wake_at) AS overslept
    FROM counted AS c JOIN refresher.accounts AS a USING (open_id)
    -- A back-off is no drift.
    WHERE a.state = 'active' AND isfinite(c.earliest_due_at)
      AND a.wake_at > greatest(c.should_wake_at, a.next_slot_at) + :longest_retry_seconds::float8 * interval '1 second'
),
updated AS (
    UPDATE refresher.accounts AS a
    SET videos = c.videos,
        valid = c.valid,
        expired = c.expired,
        unreachable = c.unreachable,
        valid_until = c.valid_until,
        earliest_due_at = c.earliest_due_at,
        wake_at = least(a.wake_at, m.should_wake_at)
    FROM counted AS c LEFT JOIN mended AS m USING (open_id)
    WHERE a.open_id = c.open_id
      AND (m.open_id IS NOT NULL
           OR (a.videos, a.valid, a.expired, a.unreachable, a.valid_until, a.earliest_due_at)
              IS DISTINCT FROM
              (c.videos, c.valid, c.expired, c.unreachable, c.valid_until, c.earliest_due_at))
)
SELECT open_id, nullif(overslept::float8, 'infinity') AS overslept_seconds
FROM mended
