-- Notes that used-up tokens were reported, and how many came since the last report.
WITH unsaid_accounts AS MATERIALIZED (
    SELECT open_id, tokens_ignored, now() AS now
    FROM refresher.accounts
    WHERE open_id = ANY (:open_ids::text[])
      AND tokens_ignored > 0 AND tokens_ignored_said < now() - interval '1 hour'
    FOR NO KEY UPDATE SKIP LOCKED
),
patience AS MATERIALIZED (
    {{ patience }}
),
said AS (
    UPDATE refresher.accounts AS a
    SET tokens_ignored = 0,
        tokens_ignored_said = u.now
    FROM unsaid_accounts AS u
    WHERE a.open_id = u.open_id
      AND (SELECT count(*) FROM patience) > 0
    RETURNING a.open_id, u.tokens_ignored
)
SELECT open_id, tokens_ignored FROM said
