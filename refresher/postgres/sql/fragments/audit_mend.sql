-- ------------------------ What is stored of them ---------------------------

patience AS MATERIALIZED (
    {{ patience }}
),
accounts_at_rest AS MATERIALIZED (
    -- A row: an account that nobody works now. (The others get their counts from their release.)
    -- It is not locked, as claims would skip it while we count.
    SELECT a.open_id, a.lease_epoch, a.wake_at,
           {{ token_wake_at due="a.token_due_at" }} AS token_wake_at
    FROM refresher.accounts AS a
    -- As an array, here and below: a join would be planned over all accounts.
    WHERE a.open_id = ANY (ARRAY(SELECT open_id FROM batch))
      AND (a.lease_expires_at IS NULL OR a.lease_expires_at <= now())
),
counted_accounts AS MATERIALIZED (
    -- A row: such an account with new counts, and when it should wake.
    SELECT r.open_id, r.lease_epoch, r.wake_at, c.*,
           greatest(least(c.earliest_due_at, r.token_wake_at), now()) AS should_wake_at
    FROM accounts_at_rest AS r
    CROSS JOIN LATERAL ({{ counted_videos account="r.open_id" at_most="NULL" }}) AS c
),
overslept_accounts AS (
    -- A row: an account that would wake too late.
    SELECT a.open_id, c.should_wake_at,
           extract(epoch FROM a.wake_at) - extract(epoch FROM c.should_wake_at) AS overslept
    FROM counted_accounts AS c JOIN refresher.accounts AS a USING (open_id)
    WHERE a.open_id = ANY (ARRAY(SELECT open_id FROM counted_accounts))
      -- An account with a back-off is meant to sleep.
      AND a.state = 'active' AND isfinite(c.should_wake_at)
      -- In seconds, as times at the end of their range cannot be added to.
      AND a.wake_at > greatest(c.should_wake_at, a.next_slot_at)
      AND extract(epoch FROM a.wake_at)
          - extract(epoch FROM greatest(c.should_wake_at, a.next_slot_at))
          > :longest_retry_seconds::float8
),
drifted_accounts AS MATERIALIZED (
    -- A row: an account to write, now locked. If it was claimed or woken meanwhile, what we have
    -- counted is old, and the account is skipped.
    SELECT a.open_id
    FROM refresher.accounts AS a
    JOIN counted_accounts AS c USING (open_id)
    LEFT JOIN overslept_accounts AS o USING (open_id)
    WHERE a.open_id = ANY (ARRAY(SELECT open_id FROM counted_accounts))
      AND (a.lease_epoch, a.wake_at) = (c.lease_epoch, c.wake_at)
      AND (o.open_id IS NOT NULL
           OR (a.videos, a.valid, a.expired, a.uncovered, a.missing, a.unreachable, a.valid_until,
               a.earliest_due_at)
              IS DISTINCT FROM
              (c.videos, c.valid, c.expired, c.uncovered, c.missing, c.unreachable, c.valid_until,
               c.earliest_due_at))
    ORDER BY a.open_id
    FOR UPDATE OF a SKIP LOCKED
),
mended_accounts AS (
    UPDATE refresher.accounts AS a
    SET videos = c.videos,
        valid = c.valid,
        expired = c.expired,
        uncovered = c.uncovered,
        missing = c.missing,
        unreachable = c.unreachable,
        valid_until = c.valid_until,
        earliest_due_at = c.earliest_due_at,
        wake_at = least(a.wake_at, o.should_wake_at)
    FROM counted_accounts AS c LEFT JOIN overslept_accounts AS o USING (open_id)
    WHERE a.open_id = c.open_id
      AND a.open_id = ANY (ARRAY(SELECT open_id FROM drifted_accounts))
      AND (SELECT count(*) FROM patience) > 0
    RETURNING a.open_id
)
SELECT open_id, nullif(overslept::float8, 'infinity') AS overslept_seconds
FROM overslept_accounts JOIN mended_accounts USING (open_id)
