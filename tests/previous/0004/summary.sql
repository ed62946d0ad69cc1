-- Revision 0004, refresher/postgres/status.py
WITH stored AS MATERIALIZED (
    SELECT state, uncounted, count(*) AS accounts, sum(videos) AS videos, sum(valid) AS valid,
           sum(expired) AS expired, sum(unreachable) AS unreachable,
           -- An account without videos weighs one; they are never of one kind with others.
           greatest(count(*), sum(videos)) AS weight,
           min(earliest_due_at) FILTER (WHERE uncounted IS NOT NULL) AS earliest_due_at,
           array_agg(open_id) FILTER (WHERE uncounted IS NOT NULL) AS open_ids,
           array_agg(videos) FILTER (WHERE uncounted IS NOT NULL) AS sizes
    FROM (
        SELECT open_id, state, videos, valid, expired, unreachable, earliest_due_at,
               CASE WHEN valid_until <= now() OR ((
                   wake_at <= now() OR earliest_due_at <= now() OR lease_expires_at IS NOT NULL
               ) AND state = 'active') THEN videos = 0 END AS uncounted
        FROM refresher.accounts
        OFFSET 0
    ) AS accounts
    GROUP BY state, uncounted
),
most AS (
    -- How many videos an account has that was never counted, nobody knows: more is read for it.
    SELECT CASE WHEN bool_or(uncounted) OR sum(weight) <= :videos_read::integer THEN :videos_read::integer
                ELSE :videos_sampled::integer END AS of_all,
           CASE WHEN bool_or(uncounted) THEN greatest(1, :videos_read::integer / 20)
                WHEN sum(weight) <= :videos_read::integer THEN :videos_read::integer
                ELSE greatest(1, :videos_sampled::integer / 20) END AS of_one
    FROM stored
    WHERE uncounted IS NOT NULL
),
sample AS MATERIALIZED (
    -- One of each kind first, then as many as may be read.
    SELECT state, uncounted, open_id, size, of_one AS at_most
    FROM (
        SELECT state, uncounted, open_id, size, of_one, of_all, place, coalesce(
                   sum(CASE WHEN uncounted THEN of_one ELSE least(size, of_one) END) OVER (
                       ORDER BY place, state, uncounted
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                   ),
                   0
               ) AS read_before
        FROM most, stored, unnest(open_ids[:of_all], sizes[:of_all])
                               WITH ORDINALITY AS account (open_id, size, place)
        WHERE uncounted IS NOT NULL
    ) AS accounts
    WHERE read_before < of_all OR place = 1
),
looked_into AS (
    SELECT s.state, s.uncounted, sum(c.videos * scale) AS videos, sum(c.valid * scale) AS valid,
           sum(c.expired * scale) AS expired, sum(c.unreachable * scale) AS unreachable,
           sum(c.due * scale) AS due, min(c.earliest_due_at) AS earliest_due_at,
           sum(greatest(1, s.size)) AS weight, bool_or(scale > 1) AS in_part
    FROM sample AS s
    CROSS JOIN LATERAL refresher.count_covers(s.open_id, s.at_most) AS c
    CROSS JOIN LATERAL (SELECT greatest(1, s.size::numeric / s.at_most) AS scale) AS whole
    GROUP BY 1, 2
),
counted AS (
    SELECT state, accounts, videos, valid, expired, unreachable, 0 AS due,
           NULL::timestamptz AS earliest_due_at
    FROM stored
    WHERE uncounted IS NULL
    UNION ALL
    SELECT state, s.accounts, l.videos * s.weight / l.weight, l.valid * s.weight / l.weight,
           l.expired * s.weight / l.weight, l.unreachable * s.weight / l.weight,
           l.due * s.weight / l.weight,
           least(l.earliest_due_at,
                 CASE WHEN l.weight < s.weight OR l.in_part THEN s.earliest_due_at END)
    FROM stored AS s JOIN looked_into AS l USING (state, uncounted)
)
SELECT state,
       sum(accounts)::bigint AS accounts,
       sum(videos)::bigint AS videos,
       sum(valid)::bigint AS valid,
       sum(CASE WHEN state = 'active' THEN expired ELSE 0 END)::bigint AS expired,
       sum(CASE WHEN state = 'active' THEN unreachable ELSE videos - valid END)::bigint
           AS unreachable,
       sum(CASE WHEN state = 'active' THEN due ELSE 0 END)::bigint AS due,
       CASE WHEN state = 'active' THEN
           greatest(0, extract(epoch FROM now()) - extract(epoch FROM min(earliest_due_at)))::float8
       END AS oldest_overdue_seconds
FROM counted
GROUP BY state
