-- Extends leases. Also one that has run out, if no other replica has claimed the account since. A
-- wake-up that somebody has moved before the end of the lease stays before its new end: the release
-- looks for it there.
WITH patience AS MATERIALIZED (
    {{ patience }}
),
leased_accounts AS MATERIALIZED (
    SELECT a.open_id, now() + :lease::interval AS lease_expires_at,
           CASE WHEN a.wake_at < a.lease_expires_at THEN a.wake_at
                ELSE now() + :lease::interval END AS wake_at
    FROM unnest(:open_ids::text[], :lease_epochs::bigint[]) AS r (open_id, lease_epoch)
    JOIN refresher.accounts AS a
      ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_expires_at IS NOT NULL
    ORDER BY a.open_id
    -- A weaker lock than a claim's: write-backs of the same accounts hold key-share locks.
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
extended AS (
    UPDATE refresher.accounts AS a
    SET wake_at = l.wake_at, lease_expires_at = l.lease_expires_at
    FROM leased_accounts AS l
    WHERE a.open_id = l.open_id
      AND (SELECT count(*) FROM patience) > 0
    RETURNING a.open_id, a.lease_expires_at
)
SELECT open_id, lease_expires_at - now() AS left FROM extended
