-- Ends the wait of accounts that wait for better app credentials.
WITH waiting_accounts AS MATERIALIZED (
    {{ waiting_for_credentials }}
      AND a.open_id = ANY (:open_ids::text[])
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
patience AS MATERIALIZED (
    {{ patience }}
),
freed_accounts AS (
    UPDATE refresher.accounts AS a
    SET token_due_at = w.now,
        -- In work it holds the end of the lease: we leave it.
        wake_at = CASE WHEN w.leased THEN a.wake_at ELSE least(a.wake_at, w.now) END
    FROM waiting_accounts AS w
    WHERE a.open_id = w.open_id
      AND (SELECT count(*) FROM patience) > 0
    RETURNING a.open_id
)
SELECT open_id FROM freed_accounts
