-- Lines of the file with a video of an account that is not stored.
SELECT line, count(*) OVER () AS wrong, open_id AS value,
       'open_id: expected a known account' AS expected
FROM staged_videos AS s LEFT JOIN refresher.accounts AS a USING (open_id)
-- As NOT EXISTS, in which Citus joins no table on a worker with one of a session.
WHERE a.open_id IS NULL
ORDER BY line
LIMIT :most
