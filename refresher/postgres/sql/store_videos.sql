-- A video that is stored already stays as it is. A video that comes with its URL needs no reserve.
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, due_at, reserve)
SELECT open_id, video_id, cover_image_url, cover_expires_at, coalesce(due_at, now()),
       CASE WHEN cover_image_url IS NULL THEN repeat('.', 340) END
FROM staged_videos
ORDER BY open_id, video_id
ON CONFLICT DO NOTHING
