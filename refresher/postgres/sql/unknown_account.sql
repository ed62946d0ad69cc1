-- Lines of the file with a video of an account that is not stored.
SELECT line, count(*) OVER () AS wrong, open_id AS value,
       'open_id: expected a known account' AS expected
FROM staged_videos AS s
WHERE NOT EXISTS (SELECT FROM refresher.accounts AS a WHERE a.open_id = s.open_id)
ORDER BY line
LIMIT :most
