-- What an attached table has told, the oldest first: as much as one transaction is to apply. Nothing
-- is locked or taken yet. The weight of a whole account is that of a few videos: it is only looked
-- at, and what differs is told anew.
SELECT id, told_at, accounts, open_ids, video_ids
FROM (
    SELECT *, sum(videos) OVER (ORDER BY id) - videos AS videos_before
    FROM (
        SELECT id, told_at, accounts, open_ids, video_ids,
               coalesce(cardinality(video_ids), 40 * cardinality(open_ids)) AS videos
        FROM refresher.changed_rows
        WHERE attachment = :attachment AND not_before <= now()
          AND NOT EXISTS (SELECT 1 FROM refresher.attachments AS a
                          WHERE a.name = :attachment AND a.detaching)
        ORDER BY id
        LIMIT :rows
    ) AS oldest
) AS weighed
WHERE videos_before < :videos
ORDER BY id
