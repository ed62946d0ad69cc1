-- Revision 0001, refresher/postgres/status.py
WITH counted AS (
    SELECT state, videos, valid, expired, unreachable,
           0 AS due, NULL::timestamptz AS earliest_due_at
    FROM refresher.accounts
    WHERE valid_until > now()
      AND (state <> 'active'
           OR (wake_at > now() AND earliest_due_at > now() AND lease_expires_at IS NULL))
    UNION ALL
    SELECT a.state, c.videos, c.valid, c.expired, c.unreachable, c.due, c.earliest_due_at
    FROM refresher.accounts AS a CROSS JOIN LATERAL refresher.count_covers(a.open_id) AS c
    WHERE a.valid_until <= now()
       OR (a.state = 'active'
           AND (a.wake_at <= now() OR a.earliest_due_at <= now() OR a.lease_expires_at IS NOT NULL))
)
SELECT state,
       count(*) AS accounts,
       sum(videos) AS videos,
       sum(valid) AS valid,
       sum(CASE WHEN state = 'active' THEN expired ELSE 0 END) AS expired,
       sum(CASE WHEN state = 'active' THEN unreachable ELSE videos - valid END) AS unreachable,
       sum(CASE WHEN state = 'active' THEN due ELSE 0 END) AS due,
       CASE WHEN state = 'active' THEN
           greatest(0, extract(epoch FROM now()) - extract(epoch FROM min(earliest_due_at)))::float8
       END AS oldest_overdue_seconds
FROM counted
GROUP BY state
