-- Also a lease that has run out, as long as nobody else has taken the account since. A wake-up that
-- somebody has lowered stays below the end of the lease, where the release looks for it.
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
),
held AS MATERIALIZED (
    SELECT a.open_id
    FROM unnest(:open_ids::text[], :lease_epochs::bigint[]) AS r (open_id, lease_epoch)
    JOIN refresher.accounts AS a
      ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_expires_at IS NOT NULL
    ORDER BY a.open_id
    -- Not as strong as a claim: results of the same accounts are being written under a key share.
    FOR NO KEY UPDATE OF a SKIP LOCKED
)
UPDATE refresher.accounts AS a
SET wake_at = CASE WHEN a.wake_at < a.lease_expires_at THEN a.wake_at
                   ELSE now() + :lease::interval END,
    lease_expires_at = now() + :lease::interval
FROM held
WHERE a.open_id = held.open_id
  AND (SELECT count(*) FROM impatient) > 0
RETURNING a.open_id, a.lease_expires_at - now() AS left
