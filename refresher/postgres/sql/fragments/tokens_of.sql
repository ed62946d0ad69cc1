-- A page of the accounts that `which` names.
SELECT open_id, access_token, refresh_token, tokens_generation
FROM refresher.accounts
WHERE open_id > :after AND {{ which }}
ORDER BY open_id
LIMIT {{ sealed_at_once }}
