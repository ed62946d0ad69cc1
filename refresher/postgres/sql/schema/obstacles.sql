-- What a partitioned table cannot have, or what we would lose.
SELECT string_agg(what, ', ')
FROM pg_class AS c CROSS JOIN LATERAL (
    VALUES ('row-level security', c.relrowsecurity OR EXISTS (
                SELECT 1 FROM pg_policy WHERE polrelid = c.oid)),
           ('a rule', c.relhasrules),
           ('a publication of its own', EXISTS (
                SELECT 1 FROM pg_publication_rel WHERE prrelid = c.oid)),
           ('a replica identity', c.relreplident <> 'd'),
           ('inheritance', c.relhassubclass OR EXISTS (
                SELECT 1 FROM pg_inherits WHERE inhrelid = c.oid)),
           ('a tablespace', c.reltablespace <> 0),
           ('no write-ahead log', c.relpersistence <> 'p'),
           ('a unique index without open_id', EXISTS (
                SELECT 1 FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = c.oid
                WHERE i.indrelid = c.oid AND i.indisunique AND a.attname = 'open_id'
                  AND a.attnum <> ALL (i.indkey))),
           ('a trigger for each row with a transition table', EXISTS (
                SELECT 1 FROM pg_trigger
                WHERE tgrelid = c.oid AND tgtype & 1 = 1
                  AND coalesce(tgoldtable, tgnewtable) IS NOT NULL))
) AS obstacle (what, stands)
WHERE c.oid = 'refresher.videos'::regclass AND stands
