-- What the server counted of each table of ours, partitions with their table.
SELECT coalesce(parent.relname, c.relname)::text AS name,
       sum(coalesce(s.n_tup_upd, 0))::bigint AS updates,
       sum(coalesce(s.n_tup_hot_upd, 0))::bigint AS hot_updates,
       -- The counter begins at 0 when the statistics are reset.
       sum(greatest(s.n_live_tup, c.reltuples, 0))::bigint AS live_rows,
       sum(coalesce(s.n_dead_tup, 0))::bigint AS dead_rows,
       bool_or(EXISTS (
           SELECT 1 FROM pg_options_to_table(c.reloptions)
           WHERE option_name = 'autovacuum_enabled' AND NOT option_value::boolean
       )) AS unattended
FROM pg_class AS c
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
LEFT JOIN pg_class AS parent ON parent.oid = i.inhparent
LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
WHERE c.relnamespace = 'refresher'::regnamespace AND c.relkind = 'r'
GROUP BY coalesce(parent.relname, c.relname)
ORDER BY name
