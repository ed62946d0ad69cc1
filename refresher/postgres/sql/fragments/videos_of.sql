-- A row: a video of what is written alike.
SELECT l.open_id, l.number, l.due_at, l.cover_expires_at, l.misses, l.missing, l.gone, l.refusal,
       w.*
FROM {{ writes }} AS l
CROSS JOIN LATERAL unnest(string_to_array(l.video_ids, :separator),
                          string_to_array(l.urls, :separator),
                          string_to_array(l.ctids, ' ')::tid[])
     AS w (video_id, cover_image_url, ctid)
-- Each row is complete before it is looked for, so in its partition only.
OFFSET 0
