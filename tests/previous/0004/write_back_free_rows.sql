-- Revision 0004, refresher/postgres/write_back.py
WITH held AS MATERIALIZED (
         SELECT r.*
         FROM unnest(:open_ids::text[], :lease_epochs::bigint[], :numbers::integer[], :video_ids::text[], :urls::text[], :ctids::text[],
                     :due_at::timestamptz[], :cover_expires_at::timestamptz[], :misses::smallint[], :missing::boolean[],
                     :gone::boolean[], :refusals::text[])
              AS r (open_id, lease_epoch, number, video_ids, urls, ctids, due_at, cover_expires_at,
                    misses, missing, gone, refusal)
         CROSS JOIN LATERAL (
             SELECT lease_epoch FROM refresher.accounts AS a
             WHERE a.open_id = r.open_id
             FOR KEY SHARE SKIP LOCKED
         ) AS a
         WHERE a.lease_epoch = r.lease_epoch
     ),
free AS MATERIALIZED (
    SELECT w.*
    FROM (SELECT h.open_id, h.number, h.due_at, h.cover_expires_at, h.misses, h.missing, h.gone, h.refusal,
                 w.*
          FROM held AS h
          CROSS JOIN LATERAL unnest(string_to_array(h.video_ids, :separator), string_to_array(h.urls, :separator),
                                    string_to_array(h.ctids, ' ')::tid[])
               AS w (video_id, cover_image_url, ctid)
          -- Each row is complete before it is looked for, so in its partition only.
          OFFSET 0) AS w JOIN refresher.videos AS v USING (open_id, video_id)
    WHERE (w.cover_image_url IS NULL
           OR v.cover_image_url IS NULL
           OR v.cover_expires_at IS NULL
           OR v.cover_expires_at < w.cover_expires_at)
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
        refusal = w.refusal,
        reserve = CASE WHEN w.cover_image_url IS NULL THEN v.reserve END
    FROM free AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
    RETURNING w.number
)
SELECT number, count(*) AS videos FROM written GROUP BY number
