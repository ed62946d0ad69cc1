-- The token request is over: nobody waits for it any longer. `unknown`: what came of it is open,
-- which stays noted.
UPDATE refresher.accounts
SET token_request_until = CASE WHEN :unknown THEN '-infinity'::timestamptz END
WHERE open_id = :open_id AND lease_epoch = :lease_epoch AND tokens_generation = :generation
  AND token_request_until IS NOT NULL
