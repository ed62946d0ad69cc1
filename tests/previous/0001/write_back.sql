-- Revision 0001, refresher/postgres/write_back.py
WITH held AS MATERIALIZED (
    SELECT c.chunk, c.open_id
    FROM unnest(:open_ids::text[], :lease_epochs::bigint[]) WITH ORDINALITY AS c (open_id, lease_epoch, chunk)
    JOIN refresher.accounts AS a ON a.open_id = c.open_id AND a.lease_epoch = c.lease_epoch
    ORDER BY c.open_id
    FOR KEY SHARE OF a SKIP LOCKED
),
writes AS MATERIALIZED (
    SELECT h.open_id, w.*
    FROM unnest(:chunks::integer[], :video_ids::text[], :urls::text[], :cover_expires_at::timestamptz[], :due_at::timestamptz[],
                :misses::smallint[], :missing::boolean[], :gone::boolean[])
         AS w (chunk, video_id, cover_image_url, cover_expires_at, due_at, misses, missing, gone)
    JOIN held AS h USING (chunk)
),
free AS MATERIALIZED (
    SELECT w.*
    FROM writes AS w JOIN refresher.videos AS v USING (open_id, video_id)
    WHERE w.cover_image_url IS NULL
       OR v.cover_image_url IS NULL
       OR v.cover_expires_at IS NULL
       OR v.cover_expires_at < w.cover_expires_at
    ORDER BY w.open_id, w.video_id
    FOR NO KEY UPDATE OF v SKIP LOCKED
),
written AS (
    UPDATE refresher.videos AS v
    SET cover_image_url = coalesce(w.cover_image_url, v.cover_image_url),
        cover_expires_at = coalesce(w.cover_expires_at, v.cover_expires_at),
        refreshed_at = CASE WHEN w.cover_image_url IS NULL THEN v.refreshed_at ELSE now() END,
        missing_since = CASE WHEN w.missing THEN coalesce(v.missing_since, now()) END,
        gone_at = CASE WHEN w.gone THEN coalesce(v.gone_at, now()) END,
        due_at = w.due_at,
        misses = w.misses,
        reserve = CASE WHEN w.cover_image_url IS NULL THEN v.reserve END
    FROM free AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
    RETURNING w.chunk
)
SELECT chunk, count(*) AS videos FROM written GROUP BY chunk
