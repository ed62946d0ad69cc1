-- Ends the wait of accounts that wait for better app credentials.
WITH waiting_accounts AS MATERIALIZED (
    {{ waiting_for_credentials }}
      AND a.open_id = ANY (:open_ids::text[])
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
patience AS MATERIALIZED (
    {{ patience }}
)
UPDATE refresher.accounts AS a
SET token_due_at = now(),
    -- In work it holds the end of the lease: we leave it.
    wake_at = CASE WHEN a.lease_expires_at > now() THEN a.wake_at ELSE least(a.wake_at, now()) END
FROM waiting_accounts
WHERE a.open_id = waiting_accounts.open_id
  AND (SELECT count(*) FROM patience) > 0
RETURNING a.open_id
