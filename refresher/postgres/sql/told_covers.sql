-- Which covers have changed and are to be carried, the oldest first. Nothing is taken yet.
SELECT id, told_at, open_ids, video_ids
FROM refresher.changed_covers
WHERE attachment = :attachment AND not_before <= now()
ORDER BY id
LIMIT :most
