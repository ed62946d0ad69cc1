-- What is stored of a batch.
impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
),
accounts_at_rest AS MATERIALIZED (
    -- An account that is being worked gets its counts from its release. Not locked: a claim would
    -- pass by what is being counted.
    SELECT a.open_id, a.lease_epoch, a.wake_at,
           {{ token_wake_at due="a.token_due_at" }} AS token_wake_at
    FROM refresher.accounts AS a
    -- As an array, here and below: a join would be planned as one of all accounts.
    WHERE a.open_id = ANY (ARRAY(SELECT open_id FROM batch))
      AND (a.lease_expires_at IS NULL OR a.lease_expires_at <= now())
),
counted AS MATERIALIZED (
    SELECT r.open_id, r.lease_epoch, r.wake_at, c.*,
           greatest(least(c.earliest_due_at, r.token_wake_at), now()) AS should_wake_at
    FROM accounts_at_rest AS r CROSS JOIN LATERAL refresher.count_videos(r.open_id, NULL) AS c
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
          - extract(epoch FROM greatest(c.should_wake_at, a.next_slot_at))
          > :longest_retry_seconds::float8
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
