WITH unsaid AS MATERIALIZED (
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
FROM unsaid
WHERE a.open_id = unsaid.open_id
  AND (SELECT count(*) FROM patience) > 0
RETURNING a.open_id, unsaid.tokens_ignored
