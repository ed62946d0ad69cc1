-- The next accounts of the walk through an attachment. With a step every ten seconds it takes about
-- an hour.
SELECT w.walked_to, now() AS now, array(
    SELECT a.open_id
    FROM refresher.accounts AS a
    WHERE a.open_id > w.walked_to
    ORDER BY a.open_id
    LIMIT (SELECT greatest(20, reltuples / :walk_steps)::integer
           FROM pg_class WHERE oid = 'refresher.accounts'::regclass)
) AS open_ids
FROM refresher.attachments AS w
WHERE w.name = :attachment
