-- Revision 0004, refresher/postgres/tokens.py
UPDATE refresher.accounts
SET token_request_until = CASE WHEN :unknown THEN '-infinity'::timestamptz END
WHERE open_id = :open_id AND lease_epoch = :lease_epoch AND tokens_generation = :generation
  AND token_request_until IS NOT NULL
