-- Revision 0004, refresher/postgres/tokens.py
WITH held AS MATERIALIZED (
    SELECT open_id
    FROM refresher.accounts
    WHERE open_id = :open_id
      AND lease_epoch = :lease_epoch
      AND lease_expires_at > now()
      AND tokens_generation = :generation
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE refresher.accounts AS a
SET token_request_until = now() + :unknown::interval
FROM held
WHERE a.open_id = held.open_id
RETURNING a.open_id
