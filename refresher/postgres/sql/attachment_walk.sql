-- How far the walk through an attachment has come, and how many accounts the next step is. With a
-- step every ten seconds it takes about an hour.
SELECT a.walk, a.walked_to,
       (SELECT greatest(20, reltuples / :walk_steps)::integer
        FROM pg_class WHERE oid = 'refresher.accounts'::regclass) AS step
FROM refresher.attachments AS a
WHERE a.name = :attachment
