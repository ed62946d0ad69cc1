-- What an attached table has told, the oldest first. Nothing is locked or taken yet.
SELECT id, told_at, accounts, open_ids, video_ids
FROM refresher.changed_rows
WHERE attachment = :attachment AND not_before <= now()
ORDER BY id
LIMIT :most
