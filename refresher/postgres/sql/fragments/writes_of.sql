-- A row for each video of what is `held`.
SELECT h.open_id, h.number, h.due_at, h.cover_expires_at, h.misses, h.missing, h.gone, h.refusal,
       w.*
FROM {{ chunks }} AS h
CROSS JOIN LATERAL unnest(string_to_array(h.video_ids, :separator),
                          string_to_array(h.urls, :separator),
                          string_to_array(h.ctids, ' ')::tid[])
     AS w (video_id, cover_image_url, ctid)
-- Each row is complete before it is looked for, so in its partition only.
OFFSET 0
