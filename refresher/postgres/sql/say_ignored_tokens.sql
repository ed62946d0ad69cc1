-- Notes that used-up tokens were reported, and how many came since the last report.
WITH unsaid_accounts AS MATERIALIZED (
    SELECT open_id, tokens_ignored
    FROM refresher.accounts
    WHERE open_id = ANY (:open_ids::text[])
      AND tokens_ignored > 0 AND tokens_ignored_said < now() - interval '1 hour'
    FOR NO KEY UPDATE SKIP LOCKED
),
patience AS MATERIALIZED (
    {{ patience }}
)
UPDATE refresher.accounts AS a
SET tokens_ignored = 0,
    tokens_ignored_said = now()
FROM unsaid_accounts
WHERE a.open_id = unsaid_accounts.open_id
  AND (SELECT count(*) FROM patience) > 0
RETURNING a.open_id, unsaid_accounts.tokens_ignored
