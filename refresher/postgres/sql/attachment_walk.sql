-- How far the walk through an attachment has come, and how many accounts the next step is. With a
-- step every ten seconds it takes about an hour. It waits for what it has told to be applied: else it
-- would find that again.
SELECT a.walk, a.walked_to,
       EXISTS (
           SELECT 1 FROM refresher.changed_rows AS c
           WHERE c.attachment = a.name AND c.not_before <= now()
             AND c.told_at < now() - interval '5 seconds'
       ) AS waits,
       (SELECT greatest(20, reltuples / :walk_steps)::integer
        FROM pg_class WHERE oid = 'refresher.accounts'::regclass) AS step
FROM refresher.attachments AS a
WHERE a.name = :attachment
