-- Extends leases: also one that has run out, as long as no other replica has claimed the account
-- since. A wake-up that somebody has lowered stays before the end of the lease, where the release
-- looks for it.
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
),
leased_accounts AS MATERIALIZED (
    SELECT a.open_id
    FROM unnest(:open_ids::text[], :lease_epochs::bigint[]) AS r (open_id, lease_epoch)
    JOIN refresher.accounts AS a
      ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_expires_at IS NOT NULL
    ORDER BY a.open_id
    -- Weaker than a claim's: results of the same accounts are being written under a key share.
    FOR NO KEY UPDATE OF a SKIP LOCKED
)
UPDATE refresher.accounts AS a
SET wake_at = CASE WHEN a.wake_at < a.lease_expires_at THEN a.wake_at
                   ELSE now() + :lease::interval END,
    lease_expires_at = now() + :lease::interval
FROM leased_accounts AS l
WHERE a.open_id = l.open_id
  AND (SELECT count(*) FROM impatient) > 0
RETURNING a.open_id, a.lease_expires_at - now() AS left
