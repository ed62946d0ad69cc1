-- The accounts that are worked, with their videos counted by their times: the largest accounts, and
-- of the others one in so many, in the order of their sizes. Of each account it reads a bounded
-- number of videos, by their primary key.
WITH worked AS (
    SELECT open_id, size, free_at, rate_share,
           row_number() OVER (ORDER BY size DESC, open_id) - :largest::bigint AS place,
           sum(size) OVER () AS all_videos
    FROM (
        SELECT open_id,
               CASE WHEN videos = 0 AND wake_at < 'infinity' THEN {{ assumed_videos }}
                    ELSE videos END AS size,
               -- While it is leased, its wake-up is the end of the lease.
               extract(epoch FROM greatest(next_slot_at, CASE
                   WHEN failures > 0 AND lease_expires_at IS NULL AND wake_at < 'infinity'
                   THEN wake_at END))::float8 AS free_at,
               {{ rate_share_now }} AS rate_share
        FROM refresher.accounts AS a
        WHERE state = 'active' AND isolated_since IS NULL
        OFFSET 0
    ) AS sizes
    WHERE size > 0
),
sampled AS MATERIALIZED (
    -- Of each so many others the one in the middle.
    SELECT * FROM worked WHERE place <= 0 OR place % :every::bigint = :every::bigint / 2
)
SELECT s.open_id, s.size, s.place <= 0 AS alone, s.all_videos, s.free_at, s.rate_share, v.*
FROM sampled AS s
CROSS JOIN LATERAL (
    SELECT floor(extract(epoch FROM due_at))::float8 AS due,
           floor(extract(epoch FROM cover_expires_at))::float8 AS expires,
           misses,
           missing_since IS NOT NULL AS missing,
           refusal IS NOT NULL AS refused,
           count(*) AS videos,
           min(extract(epoch FROM cover_expires_at - refreshed_at))::float8 AS lived
    FROM (
        SELECT due_at, misses, missing_since, refusal, refreshed_at,
               CASE WHEN cover_image_url IS NOT NULL THEN cover_expires_at END AS cover_expires_at
        FROM refresher.videos
        WHERE open_id = s.open_id
        ORDER BY video_id
        LIMIT :of_one
    ) AS part
    GROUP BY 1, 2, 3, 4, 5
) AS v
ORDER BY s.open_id, v.due
