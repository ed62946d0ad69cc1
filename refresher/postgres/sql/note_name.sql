-- Noted once for all replicas.
WITH news AS MATERIALIZED (
    SELECT open_id
    FROM refresher.accounts
    WHERE open_id = :open_id AND token_open_id IS DISTINCT FROM :token_open_id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE refresher.accounts AS a
SET token_open_id = :token_open_id
FROM news
WHERE a.open_id = news.open_id
RETURNING a.open_id
