-- Storage parameters, also of the TOAST table. They belong to the partitions, which hold the rows.
SELECT ' WITH (' || string_agg(parameter, ', ') || ')'
FROM pg_class AS c LEFT JOIN pg_class AS toast ON toast.oid = c.reltoastrelid
CROSS JOIN LATERAL (
    SELECT unnest(c.reloptions)
    UNION ALL
    SELECT 'toast.' || unnest(toast.reloptions)
) AS parameters (parameter)
WHERE c.oid = 'refresher.videos'::regclass
