-- Which covers have changed and are to be carried, the oldest first: as many as one transaction is to
-- write. Nothing is taken yet.
SELECT id, told_at, open_ids, video_ids
FROM (
    SELECT *, sum(videos) OVER (ORDER BY id) - videos AS videos_before
    FROM (
        SELECT id, told_at, open_ids, video_ids, cardinality(video_ids) AS videos
        FROM refresher.changed_covers
        WHERE attachment = :attachment AND not_before <= now()
          AND NOT EXISTS (SELECT 1 FROM refresher.attachments AS a
                          WHERE a.name = :attachment AND a.detaching)
        ORDER BY id
        LIMIT :rows
    ) AS oldest
) AS weighed
WHERE videos_before < :videos
ORDER BY id
