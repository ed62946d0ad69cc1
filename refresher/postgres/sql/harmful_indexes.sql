-- Indexes that are invalid, and those that keep the updates of videos from being HOT: they name a
-- column that a refresh writes, be it in a condition or an expression. A partition's index is told
-- as that of its table.
WITH written AS (
    SELECT attrelid, attnum
    FROM pg_attribute
    WHERE attrelid IN (
            SELECT 'refresher.videos'::regclass
            UNION ALL
            SELECT inhrelid FROM pg_inherits WHERE inhparent = 'refresher.videos'::regclass
        )
        AND attname IN ('cover_image_url', 'cover_expires_at', 'refreshed_at', 'missing_since',
                        'gone_at', 'due_at', 'misses', 'reserve', 'refusal')
)
SELECT coalesce(parent.inhparent, i.indexrelid)::regclass::text AS name,
       bool_and(i.indisvalid AND i.indisready) AS is_valid,
       -- Since version 16 an index that only sums up ranges of pages does no harm.
       bool_or(NOT (am.amname = 'brin'
                    AND current_setting('server_version_num')::integer >= 160000)
           AND EXISTS (
           SELECT 1 FROM written
           WHERE attrelid = i.indrelid
               -- Of an index for a constraint, only the constraint depends on the columns.
               AND (attnum = ANY (i.indkey::smallint[]) OR EXISTS (
                   SELECT 1 FROM pg_depend
                   WHERE classid = 'pg_class'::regclass AND objid = i.indexrelid
                       AND refclassid = 'pg_class'::regclass AND refobjid = attrelid
                       AND refobjsubid = attnum
               ))
       )) AS hinders
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indrelid
JOIN pg_class AS own ON own.oid = i.indexrelid
JOIN pg_am AS am ON am.oid = own.relam
LEFT JOIN pg_inherits AS parent ON parent.inhrelid = i.indexrelid
WHERE c.relnamespace = 'refresher'::regnamespace
GROUP BY coalesce(parent.inhparent, i.indexrelid)
ORDER BY name
