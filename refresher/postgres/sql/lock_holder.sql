-- Which session holds the lock that the named session waits for. If that one waits, too, we go on
-- to whom it waits for: the last of the chain can release it. 0 is a prepared transaction. Its
-- query is never read: it may hold secrets.
WITH RECURSIVE waiting AS (
    SELECT pid, 0 AS depth
    FROM pg_stat_activity
    WHERE application_name = :session_name AND datname = current_database()
    UNION ALL
    SELECT blocking.pid, w.depth + 1
    FROM waiting AS w
    CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS blocking (pid)
    WHERE w.depth < 5
)
SELECT w.pid, a.application_name,
       CASE WHEN isfinite(a.xact_start) THEN a.xact_start END AS since
FROM waiting AS w LEFT JOIN pg_stat_activity AS a USING (pid)
WHERE w.depth > 0
ORDER BY w.depth DESC, a.xact_start
LIMIT 1
