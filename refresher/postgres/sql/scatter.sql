-- On how many pages the videos of some accounts lie, and the fewest that could hold them. The
-- accounts come from a few pages of their table, as many rows of each are read as a claim reads.
WITH sizes AS (
    SELECT sum(pg_relation_size(oid))::bigint AS table_bytes,
           -- NULL: neither VACUUM nor ANALYZE has counted them so far.
           nullif(sum(greatest(reltuples, 0)) / nullif(sum(relpages), 0), 0) AS rows_on_page
    FROM pg_class
    WHERE relkind = 'r'
        AND (oid = 'refresher.videos'::regclass OR oid IN (
            SELECT inhrelid FROM pg_inherits WHERE inhparent = 'refresher.videos'::regclass
        ))
), chosen AS (
    SELECT open_id
    -- Said once more below, as Citus looks for parameters only there, and of this type.
    FROM refresher.accounts TABLESAMPLE SYSTEM (:percent::float8::float4)
    WHERE :percent::float8 > 0 AND videos > 0
    LIMIT :accounts
), lying AS (
    SELECT chosen.open_id, count(*) AS read, count(DISTINCT (tableoid, page)) AS pages
    FROM chosen
    CROSS JOIN LATERAL (
        SELECT tableoid, split_part(ctid::text, ',', 1) AS page
        FROM refresher.videos AS v
        WHERE v.open_id = chosen.open_id
        LIMIT :rows
    ) AS video
    GROUP BY chosen.open_id
)
SELECT count(lying.open_id) AS accounts,
       coalesce(sum(read), 0)::bigint AS rows,
       coalesce(sum(pages), 0)::bigint AS pages,
       -- least() passes NULLs over.
       (sum(least(pages, ceil(read / rows_on_page))) FILTER (WHERE rows_on_page IS NOT NULL))::bigint
           AS least_pages,
       max(sizes.table_bytes) AS table_bytes,
       pg_size_bytes(current_setting('effective_cache_size')) AS cache_bytes
FROM sizes LEFT JOIN lying ON true
