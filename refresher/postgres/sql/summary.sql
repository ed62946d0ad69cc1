-- An account's stored counts hold until valid_until, and while it sleeps nothing of it is due.
-- These counts are added up in one pass. Only of the other accounts are videos read.
--
-- That pass takes nearly all the time, so it does little for each row. One expression, computed
-- once because of OFFSET 0, sorts the accounts: counts hold (NULL), never counted (true), others
-- (false).
WITH kinds AS MATERIALIZED (
    -- A row: all accounts of one kind, which is their state and whether their counts hold.
    SELECT state, uncounted, count(*) AS accounts, sum(videos) AS videos, sum(valid) AS valid,
           sum(expired) AS expired, sum(unreachable) AS unreachable,
           -- If a replica of an earlier version counts, these two may be older than the others: so
           -- we take no more than the others leave room for. least() ignores NULL.
           sum(least(uncovered, videos - valid - expired - unreachable)) AS uncovered,
           sum(least(missing, videos - unreachable)) AS missing,
           -- An account without videos weighs one. Such accounts are a kind of their own.
           greatest(count(*), sum(videos)) AS weight,
           min(earliest_due_at) FILTER (WHERE uncounted IS NOT NULL) AS earliest_due_at,
           array_agg(open_id) FILTER (WHERE uncounted IS NOT NULL) AS open_ids,
           array_agg(videos) FILTER (WHERE uncounted IS NOT NULL) AS sizes
    FROM (
        SELECT open_id, state, videos, valid, expired, uncovered, missing, unreachable,
               earliest_due_at,
               CASE WHEN valid_until <= now() OR ((
                   wake_at <= now() OR earliest_due_at <= now() OR lease_expires_at IS NOT NULL
               ) AND state = 'active') THEN videos = 0 END AS uncounted
        FROM refresher.accounts
        OFFSET 0
    ) AS accounts
    GROUP BY state, uncounted
),
limits AS (
    -- One row: how many videos to read in all, and of one account. More if there are accounts that
    -- were never counted, as their number of videos is unknown.
    SELECT CASE WHEN bool_or(uncounted) OR sum(weight) <= :videos_read::integer
                THEN :videos_read::integer ELSE :videos_sampled::integer END AS of_all,
           CASE WHEN bool_or(uncounted) THEN greatest(1, :videos_read::integer / {{ share_of_one }})
                WHEN sum(weight) <= :videos_read::integer THEN :videos_read::integer
                ELSE greatest(1, :videos_sampled::integer / {{ share_of_one }}) END AS of_one
    FROM kinds
    WHERE uncounted IS NOT NULL
),
sampled_accounts AS MATERIALIZED (
    -- A row: an account to look into. One of each kind first, then as many as may be read.
    SELECT state, uncounted, open_id, size, of_one AS at_most
    FROM (
        SELECT state, uncounted, open_id, size, of_one, of_all, place, coalesce(
                   sum(CASE WHEN uncounted THEN of_one ELSE least(size, of_one) END) OVER (
                       ORDER BY place, state, uncounted
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                   ),
                   0
               ) AS read_before
        FROM limits, kinds, unnest(open_ids[:of_all], sizes[:of_all])
                               WITH ORDINALITY AS account (open_id, size, place)
        WHERE uncounted IS NOT NULL
    ) AS accounts
    WHERE read_before < of_all OR place = 1
),
sampled_kinds AS (
    -- A row: a kind, as counted in its sample.
    SELECT s.state, s.uncounted, sum(c.videos * scale) AS videos, sum(c.valid * scale) AS valid,
           sum(c.expired * scale) AS expired, sum(c.uncovered * scale) AS uncovered,
           sum(c.missing * scale) AS missing, sum(c.unreachable * scale) AS unreachable,
           sum(c.due * scale) AS due, min(c.earliest_due_at) AS earliest_due_at,
           sum(greatest(1, s.size)) AS weight, bool_or(scale > 1) AS in_part
    FROM sampled_accounts AS s
    CROSS JOIN LATERAL (
        {{ counted_videos account="s.open_id" at_most="s.at_most" }}
    ) AS c
    CROSS JOIN LATERAL (SELECT greatest(1, s.size::numeric / s.at_most) AS scale) AS whole
    GROUP BY 1, 2
),
counted_kinds AS (
    -- A row: a kind with its counts, as they are stored or extrapolated from the sample.
    SELECT state, accounts, videos, valid, expired, uncovered, missing, unreachable, 0 AS due,
           NULL::timestamptz AS earliest_due_at
    FROM kinds
    WHERE uncounted IS NULL
    UNION ALL
    SELECT state, kind.accounts, sample.videos * kind.weight / sample.weight,
           sample.valid * kind.weight / sample.weight,
           sample.expired * kind.weight / sample.weight,
           sample.uncovered * kind.weight / sample.weight,
           sample.missing * kind.weight / sample.weight,
           sample.unreachable * kind.weight / sample.weight,
           sample.due * kind.weight / sample.weight,
           least(sample.earliest_due_at,
                 CASE WHEN sample.weight < kind.weight OR sample.in_part
                      THEN kind.earliest_due_at END)
    FROM kinds AS kind JOIN sampled_kinds AS sample USING (state, uncounted)
)
SELECT state,
       sum(accounts)::bigint AS accounts,
       sum(videos)::bigint AS videos,
       sum(valid)::bigint AS valid,
       sum(CASE WHEN state = 'active' THEN expired ELSE 0 END)::bigint AS expired,
       sum(CASE WHEN state = 'active' THEN uncovered ELSE 0 END)::bigint AS uncovered,
       sum(missing)::bigint AS missing,
       sum(CASE WHEN state = 'active' THEN unreachable ELSE videos - valid END)::bigint
           AS unreachable,
       sum(CASE WHEN state = 'active' THEN due ELSE 0 END)::bigint AS due,
       CASE WHEN state = 'active' THEN
           greatest(0, extract(epoch FROM now()) - extract(epoch FROM min(earliest_due_at)))::float8
       END AS oldest_overdue_seconds
FROM counted_kinds
GROUP BY state
