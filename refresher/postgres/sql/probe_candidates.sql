-- Some valid covers: those on a few pages of the table, and those of the accounts that are asked for
-- next, as theirs have least left. Of accounts in trouble none: they may be refused for their own
-- reason.
WITH next_accounts AS MATERIALIZED (
    SELECT open_id
    FROM refresher.accounts
    WHERE state = 'active' AND wake_at > now() AND wake_at < 'infinity'
    ORDER BY wake_at
    LIMIT :accounts
),
covers AS MATERIALIZED (
    (SELECT open_id, video_id, cover_image_url, cover_expires_at, refreshed_at
     -- Said once more below, as Citus looks for parameters only there, and of this type.
     FROM refresher.videos TABLESAMPLE SYSTEM (:percent::float8::float4)
     WHERE :percent::float8 > 0 AND {{ is_probeable }}
     LIMIT :rows)
    UNION
    SELECT v.*
    FROM next_accounts AS a
    CROSS JOIN LATERAL (
        SELECT open_id, video_id, cover_image_url, cover_expires_at, refreshed_at
        FROM refresher.videos
        WHERE open_id = a.open_id AND {{ is_probeable }}
        LIMIT :of_one
    ) AS v
)
SELECT c.open_id, c.video_id, c.cover_image_url AS url,
       extract(epoch FROM c.cover_expires_at - now())::float8 AS left_seconds,
       extract(epoch FROM c.cover_expires_at - c.refreshed_at)::float8 AS life_seconds
FROM covers AS c
-- Each by its key, whatever the planner expects.
CROSS JOIN LATERAL (
    SELECT state, isolated_since FROM refresher.accounts WHERE open_id = c.open_id LIMIT 1
) AS a
WHERE a.state = 'active' AND a.isolated_since IS NULL
