-- A batch of the walk, which goes on behind it.
walk AS MATERIALIZED (
    SELECT audited_to,
           greatest(20, (SELECT reltuples FROM pg_class
                         WHERE oid = 'refresher.accounts'::regclass) / :walk_steps)::integer AS step
    FROM refresher.audit
    FOR UPDATE SKIP LOCKED
),
batch AS MATERIALIZED (
    SELECT open_id
    FROM (
        SELECT open_id, sum(videos) OVER (ORDER BY open_id) - videos AS read_before
        FROM (
            SELECT a.open_id,
                   CASE a.videos WHEN 0 THEN {{ assumed_videos }} ELSE a.videos END AS videos
            FROM refresher.accounts AS a
            WHERE a.open_id > (SELECT audited_to FROM walk)
            ORDER BY a.open_id
            LIMIT (SELECT step FROM walk)
        ) AS next
    ) AS reading
    WHERE read_before < :videos_read
),
walked AS (
    UPDATE refresher.audit AS a
    SET audited_to = coalesce((SELECT max(open_id) FROM batch), '')
    FROM walk
)
