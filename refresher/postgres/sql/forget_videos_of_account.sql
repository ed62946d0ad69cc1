-- Deletes the next videos of an account. `last` is NULL at the end.
WITH next AS MATERIALIZED (
    SELECT video_id
    FROM refresher.videos
    WHERE open_id = :open_id AND video_id > :after
    ORDER BY video_id
    LIMIT :most
), forgotten AS (
    DELETE FROM refresher.videos
    WHERE open_id = :open_id AND video_id = ANY (ARRAY(SELECT video_id FROM next))
    RETURNING video_id
)
SELECT (SELECT count(*) FROM forgotten) AS videos, (SELECT max(video_id) FROM next) AS last
