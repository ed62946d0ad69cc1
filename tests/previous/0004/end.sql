-- Revision 0004, refresher/postgres/tokens.py
UPDATE refresher.accounts
SET token_request_until = CASE WHEN $4 THEN '-infinity'::timestamptz END
WHERE open_id = $1 AND lease_epoch = $2 AND tokens_generation = $3
  AND token_request_until IS NOT NULL
