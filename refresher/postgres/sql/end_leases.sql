-- Ends leases of a replica that is gone, as if they had run out. Slots stay spent. The epoch is
-- raised by whoever claims the account next: should the replica live after all, what it writes until
-- then is still stored, and it can extend the lease.
WITH leased_accounts AS MATERIALIZED (
    SELECT open_id, now() AS ended_at,
           -- A wake-up before the end of the lease stays one: should the lease be extended, it tells
           -- the release that somebody has inserted videos.
           CASE WHEN wake_at < lease_expires_at
                THEN least(wake_at, now() - interval '1 millisecond') ELSE now() END AS wake_at
    FROM refresher.accounts
    WHERE open_id = ANY (:open_ids::text[])
      AND lease_owner = :replica
      AND lease_expires_at > now()
    ORDER BY open_id
    FOR NO KEY UPDATE SKIP LOCKED
),
patience AS MATERIALIZED (
    {{ patience }}
),
ended_leases AS (
    UPDATE refresher.accounts AS a
    SET lease_expires_at = l.ended_at,
        wake_at = l.wake_at
    FROM leased_accounts AS l
    WHERE a.open_id = l.open_id
      AND (SELECT count(*) FROM patience) > 0
    RETURNING a.open_id
)
SELECT open_id FROM ended_leases
