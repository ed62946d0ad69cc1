-- Noted once for all replicas.
WITH misnamed_account AS MATERIALIZED (
    SELECT open_id
    FROM refresher.accounts
    WHERE open_id = :open_id AND token_open_id IS DISTINCT FROM :token_open_id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE refresher.accounts AS a
SET token_open_id = :token_open_id
FROM misnamed_account
WHERE a.open_id = misnamed_account.open_id
RETURNING a.open_id
