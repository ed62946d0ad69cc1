-- Revision 0004, refresher/postgres/write_back.py
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '100ms', true)
),
held AS MATERIALIZED (
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
in_place AS (
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
    FROM (SELECT h.open_id, h.number, h.due_at, h.cover_expires_at, h.misses, h.missing, h.gone, h.refusal,
                 w.*
          FROM held AS h
          CROSS JOIN LATERAL unnest(string_to_array(h.video_ids, :separator), string_to_array(h.urls, :separator),
                                    string_to_array(h.ctids, ' ')::tid[])
               AS w (video_id, cover_image_url, ctid)
          -- Each row is complete before it is looked for, so in its partition only.
          OFFSET 0) AS w
    WHERE v.ctid = w.ctid AND v.open_id = w.open_id AND v.video_id = w.video_id
      AND (w.cover_image_url IS NULL
           OR v.cover_image_url IS NULL
           OR v.cover_expires_at IS NULL
           OR v.cover_expires_at < w.cover_expires_at)
      AND (SELECT count(*) FROM impatient) > 0
    RETURNING w.number, w.video_id
),
short AS MATERIALIZED (
    SELECT *
    FROM held
    -- Hashed, and neither side is ever NULL; a join would be looped over, as the planner expects
    -- one row of each.
    WHERE (number, cardinality(string_to_array(video_ids, :separator))::bigint) NOT IN (
        SELECT number, count(*) FROM in_place GROUP BY number
    )
),
moved AS (
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
    FROM (SELECT h.open_id, h.number, h.due_at, h.cover_expires_at, h.misses, h.missing, h.gone, h.refusal,
                 w.*
          FROM short AS h
          CROSS JOIN LATERAL unnest(string_to_array(h.video_ids, :separator), string_to_array(h.urls, :separator),
                                    string_to_array(h.ctids, ' ')::tid[])
               AS w (video_id, cover_image_url, ctid)
          -- Each row is complete before it is looked for, so in its partition only.
          OFFSET 0) AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
      AND (w.cover_image_url IS NULL
           OR v.cover_image_url IS NULL
           OR v.cover_expires_at IS NULL
           OR v.cover_expires_at < w.cover_expires_at)
      -- A statement may not write a row twice.
      AND NOT EXISTS (
          SELECT FROM in_place AS i WHERE i.number = w.number AND i.video_id = w.video_id
      )
    RETURNING w.number
)
SELECT number, count(*) AS videos
FROM (SELECT number FROM in_place UNION ALL SELECT number FROM moved) AS written
GROUP BY number
