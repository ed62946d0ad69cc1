-- ------------------------ Which accounts to look at ------------------------

walk AS MATERIALIZED (
    -- One row: how far the walk has come, and how many accounts a step is. No row if another
    -- replica is doing a step right now. How many there are is a parameter: of a table on a worker
    -- of Citus no catalogue says it.
    SELECT audited_to,
           greatest(20, :accounts::float8 / :walk_steps)::integer AS step
    FROM refresher.audit
    FOR UPDATE SKIP LOCKED
),
batch AS MATERIALIZED (
    -- A row: an account of this step.
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
    -- The next step goes on from here, or from the first account again.
    UPDATE refresher.audit AS a
    SET audited_to = coalesce((SELECT max(open_id) FROM batch), '')
    FROM walk
)
