-- How many accounts are in trouble, why, and for how long.
SELECT state, reason, count(*) AS accounts, sum(videos) AS videos, min(since) AS first_since,
       count(*) FILTER (WHERE since > now() - interval '1 day') AS within_day,
       count(*) FILTER (WHERE since <= now() - interval '1 day'
                          AND since > now() - interval '7 days') AS within_week,
       count(*) FILTER (WHERE since <= now() - interval '7 days') AS longer
FROM (
    {{ in_trouble }}
) AS accounts
GROUP BY 1, 2
ORDER BY 1, 2
