-- The accounts that are worked, with their videos counted by their times; of a large fleet a
-- sample. For each so many videos (`videos_each`), in the order in which accounts wake, it takes
-- the account into which the last of them falls: so what falls due in an hour has its share in the
-- sample, and no account with more videos than that is left out.
WITH worked AS (
    SELECT open_id, size, free_at, rate_share,
           sum(size) OVER (ORDER BY wake_at, open_id) AS read
    FROM (
        SELECT open_id, wake_at,
               CASE WHEN videos = 0 AND wake_at < 'infinity' THEN {{ assumed_videos }}
                    ELSE videos END AS size,
               -- While it is leased, its wake-up is the end of the lease.
               extract(epoch FROM greatest(next_slot_at, CASE
                   WHEN failures > 0 AND lease_expires_at IS NULL AND wake_at < 'infinity'
                   THEN wake_at END))::float8 AS free_at,
               {{ rate_share_now }} AS rate_share
        FROM refresher.accounts AS a
        WHERE NOT {{ is_troubled }} AND NOT {{ token_dead_for_good }}
        OFFSET 0
    ) AS sizes
    WHERE size > 0
),
sampled AS MATERIALIZED (
    SELECT * FROM worked
    WHERE floor(read / :videos_each::float8) <> floor((read - size) / :videos_each::float8)
)
SELECT s.open_id, s.size, s.free_at, s.rate_share,
       greatest(1, :videos_each::float8 / s.size) AS weight,
       v.due, v.expires, v.misses, v.missing, v.refused, count(*) AS videos, min(v.lived) AS lived
FROM sampled AS s
CROSS JOIN LATERAL (
    SELECT min(video_id) AS low, max(video_id) AS high
    FROM refresher.videos
    WHERE open_id = s.open_id
) AS ends
CROSS JOIN LATERAL (
    -- A large account is asked for in the order of its videos, so its first ones alone would be
    -- like each other. Between IDs of as many digits it is read at several places.
    SELECT CASE WHEN size > :of_one::bigint AND low || high ~ '^[0-9]+$'
                     AND length(low) = length(high) THEN {{ sampled_places }} ELSE 1 END AS number
) AS places
CROSS JOIN LATERAL generate_series(0, places.number - 1) AS place
CROSS JOIN LATERAL (
    SELECT floor(extract(epoch FROM due_at))::float8 AS due,
           floor(extract(epoch FROM CASE WHEN cover_image_url IS NOT NULL
                                         THEN cover_expires_at END))::float8 AS expires,
           misses,
           missing_since IS NOT NULL AS missing,
           refusal IS NOT NULL AS refused,
           CASE WHEN cover_image_url IS NOT NULL
                -- Before PostgreSQL 17, infinite times cannot be subtracted from each other.
                THEN (extract(epoch FROM cover_expires_at)
                      - extract(epoch FROM refreshed_at))::float8 END AS lived
    FROM refresher.videos
    WHERE open_id = s.open_id
      AND video_id >= CASE WHEN place = 0 THEN low ELSE lpad(trunc(
          low::numeric + (high::numeric - low::numeric) * place / places.number
      )::text, length(low), '0') END
    ORDER BY video_id
    LIMIT :of_one::bigint / places.number
) AS v
GROUP BY s.open_id, s.size, s.free_at, s.rate_share, v.due, v.expires, v.misses, v.missing,
         v.refused
ORDER BY s.open_id, v.due
