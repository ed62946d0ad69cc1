-- A page of `videos list`: so many videos are read, by the key, and those that are wanted returned.
-- `last_open_id` and `last_video_id` are the last that was read. There is a row as long as any was.
WITH page AS MATERIALIZED (
    SELECT open_id, video_id, cover_image_url IS NOT NULL AS covered, cover_expires_at,
           refreshed_at, missing_since, gone_at, misses, refusal, due_at
    FROM refresher.videos
    WHERE {{ which }}
    ORDER BY open_id, video_id
    LIMIT :rows
)
SELECT last.open_id AS last_open_id, last.video_id AS last_video_id, listed.*
FROM (SELECT open_id, video_id FROM page ORDER BY open_id DESC, video_id DESC LIMIT 1) AS last
LEFT JOIN (
    SELECT v.open_id, v.video_id, v.cover_expires_at, v.refreshed_at, v.missing_since, v.gone_at,
           v.misses, v.refusal, v.due_at, a.state AS account_state
    FROM page AS v JOIN refresher.accounts AS a USING (open_id)
    WHERE {{ video_is_wanted }}
) AS listed ON true
ORDER BY listed.open_id, listed.video_id
