-- Revision 0004, refresher/postgres/claims.py
WITH held AS MATERIALIZED (
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
RETURNING a.open_id, a.lease_expires_at - now() AS left
