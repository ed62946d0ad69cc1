-- How many accounts store_accounts would store. Takes no lock.
SELECT count(*)
FROM staged_accounts AS s LEFT JOIN refresher.accounts AS a USING (open_id)
WHERE a.access_token_expires_at IS NULL
   OR s.access_token_expires_at IS NULL
   OR s.access_token_expires_at >= a.access_token_expires_at
