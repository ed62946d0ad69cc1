-- Brings covers of a host forward that were stored before its lead had grown. Each becomes due as if
-- it had been stored since; only its place in the spread is another one. Locked rows stay as they
-- are. The trigger wakes the accounts.
WITH patience AS MATERIALIZED (
    {{ patience }}
),
late_videos AS MATERIALIZED (
    SELECT v.open_id, v.video_id,
           greatest(now(), v.cover_expires_at - make_interval(secs =>
               (:lead_seconds::float8 + :spread_seconds::float8
                                        * (hashtext(v.open_id) & 1023) / 1024) * s.shrink)) AS due_at
    FROM refresher.videos AS v
    CROSS JOIN LATERAL (
        -- Lead and spread together are at most the last third of its life.
        SELECT least(1, extract(epoch FROM v.cover_expires_at - v.refreshed_at)::float8 / 3
                        / (:lead_seconds::float8 + :spread_seconds::float8)) AS shrink
    ) AS s
    WHERE v.open_id = ANY (:open_ids::text[])
      AND starts_with(v.cover_image_url, :prefix)
      AND v.due_at > now()
      AND v.misses = 0
      AND v.refusal IS NULL
      AND v.refreshed_at < v.cover_expires_at
      AND v.cover_expires_at > now() AND v.cover_expires_at < 'infinity'
      AND v.due_at > v.cover_expires_at - make_interval(secs => :lead_seconds::float8 * s.shrink)
    LIMIT :rows
    FOR NO KEY UPDATE OF v SKIP LOCKED
),
forwarded_videos AS (
    UPDATE refresher.videos AS v
    SET due_at = l.due_at
    FROM late_videos AS l
    WHERE v.open_id = l.open_id AND v.video_id = l.video_id
      -- So that no plan reads the videos of others.
      AND v.open_id = ANY (:open_ids::text[])
      AND (SELECT count(*) FROM patience) > 0
    RETURNING v.open_id
)
SELECT open_id FROM forwarded_videos
