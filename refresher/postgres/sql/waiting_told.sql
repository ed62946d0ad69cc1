-- A row: an attached table, and for how long what was told of it has waited. What was put off, as a
-- row stands in its way, does not wait before it is due again.
SELECT a.name,
       coalesce(extract(epoch FROM clock_timestamp() - min(t.since)), 0)::float8 AS waiting_seconds
FROM refresher.attachments AS a
LEFT JOIN (
    SELECT attachment, greatest(told_at, not_before) AS since FROM refresher.changed_rows
    UNION ALL
    SELECT attachment, greatest(told_at, not_before) FROM refresher.changed_covers
) AS t ON t.attachment = a.name AND t.since <= clock_timestamp()
WHERE NOT a.detaching
GROUP BY a.name
ORDER BY a.name
