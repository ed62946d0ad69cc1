-- Accounts of which somebody wrote old tokens. Each once an hour at most, however often that was.
SELECT open_id
FROM refresher.accounts
WHERE tokens_ignored > 0 AND tokens_ignored_said < now() - interval '1 hour'
LIMIT 100
