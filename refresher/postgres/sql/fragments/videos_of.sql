-- A row: one video of those that are written alike.
SELECT l.open_id, l.number, l.due_at, l.cover_expires_at, l.misses, l.missing, l.gone, l.refusal,
       l.written_at, w.*
FROM {{ writes }} AS l
CROSS JOIN LATERAL unnest(string_to_array(l.video_ids, :separator),
                          string_to_array(l.urls, :separator),
                          string_to_array(l.ctids, ' ')::tid[])
     AS w (video_id, cover_image_url, ctid)
-- OFFSET 0 completes each row before it is looked for: so only its own partition is searched.
OFFSET 0
