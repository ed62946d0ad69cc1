-- Times are rounded down to the second, so that videos of one answer are one cohort. Accounts and
-- videos are read by their primary keys, page by page: no snapshot stays open over all rows.
SELECT a.open_id, v.*
FROM (
    SELECT open_id
    FROM refresher.accounts
    WHERE state = 'active' AND open_id > :after
    ORDER BY open_id
    LIMIT :page
) AS a
LEFT JOIN LATERAL (
    SELECT floor(extract(epoch FROM due_at))::float8 AS due,
           floor(extract(epoch FROM CASE WHEN cover_image_url IS NOT NULL
                                         THEN cover_expires_at END))::float8 AS expires,
           misses,
           missing_since IS NOT NULL AS missing,
           refusal IS NOT NULL AS alone,
           count(*) AS videos
    FROM refresher.videos
    WHERE open_id = a.open_id
    GROUP BY 1, 2, 3, 4, 5
) AS v ON true
ORDER BY a.open_id, v.due
