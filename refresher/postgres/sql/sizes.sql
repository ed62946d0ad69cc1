-- About how many rows and pages a table has, its partitions together: what its last vacuum found.
SELECT sum(greatest(reltuples, 0))::float8 AS rows,
       sum(pg_relation_size(oid))::float8 / current_setting('block_size')::integer AS pages
FROM pg_class
WHERE relkind = 'r'
    AND (oid = :table::text::regclass OR oid IN (
        SELECT inhrelid FROM pg_inherits WHERE inhparent = :table::text::regclass
    ))
