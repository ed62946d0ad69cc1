-- The number of partitions. NULL: the table is not partitioned.
SELECT CASE WHEN relkind = 'p' THEN (
    SELECT count(*) FROM pg_inherits WHERE inhparent = pg_class.oid
) END
FROM pg_class
WHERE oid = 'refresher.videos'::regclass
