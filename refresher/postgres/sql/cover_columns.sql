-- The columns of a table that a cover is written to: their types, and the CHECK constraints that
-- judge nothing else.
WITH written AS (
    SELECT attnum, attname, atttypid, atttypmod
    FROM pg_attribute
    WHERE attrelid = :table::regclass AND attname = ANY (:columns::text[])
)
SELECT (SELECT jsonb_object_agg(attname, format_type(atttypid, atttypmod)) FROM written) AS types,
       (
           SELECT jsonb_object_agg(conname, pg_get_expr(conbin, conrelid))
           FROM pg_constraint AS f
           WHERE conrelid = :table::regclass AND contype = 'c'
             -- A column of PostgreSQL 18, which knows NOT ENFORCED.
             AND coalesce((to_jsonb(f) ->> 'conenforced')::boolean, true)
             AND conkey <@ (SELECT array_agg(attnum) FROM written)
       ) AS checks
