-- One row: the videos of an account, or `at_most` of them, counted. As the function count_videos does,
-- but written out: Citus calls none that reads tables, and PostgreSQL would put it in here, too.
SELECT count(*)::integer AS videos,
       (count(*) FILTER (WHERE v.living))::integer AS valid,
       (count(*) FILTER (WHERE v.dead AND v.missing_since IS NULL
                           AND v.gone_at IS NULL))::integer AS expired,
       (count(*) FILTER (WHERE NOT v.living AND NOT v.dead AND v.missing_since IS NULL
                           AND v.gone_at IS NULL))::integer AS uncovered,
       (count(*) FILTER (WHERE v.missing_since IS NOT NULL AND v.gone_at IS NULL))::integer
           AS missing,
       (count(*) FILTER (WHERE NOT v.living AND v.gone_at IS NOT NULL))::integer AS unreachable,
       (count(*) FILTER (WHERE v.due_at <= now()))::integer AS due,
       coalesce(min(v.cover_expires_at) FILTER (WHERE v.living), 'infinity') AS valid_until,
       coalesce(min(v.due_at), 'infinity') AS earliest_due_at
FROM (
    -- A cover whose expiry nobody knows is neither living nor dead.
    SELECT missing_since, gone_at, due_at, cover_expires_at,
           cover_image_url IS NOT NULL AND coalesce(cover_expires_at > now(), false) AS living,
           cover_image_url IS NOT NULL AND coalesce(cover_expires_at <= now(), false) AS dead
    FROM refresher.videos
    WHERE open_id = {{ account }}
    LIMIT {{ at_most }}
) AS v
