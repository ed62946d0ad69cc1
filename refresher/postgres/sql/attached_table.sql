-- What the catalogue says of a table of an application, and what the role may do with it. One row,
-- or none where there is no such table.
SELECT n.nspname::text AS schema, 'refresher' AS our_schema, c.relname::text AS name,
       format('%I.%I', n.nspname, c.relname) AS quoted,
       c.relkind::text AS kind,
       c.relpersistence = 't' AS is_temporary,
       EXISTS (SELECT 1 FROM pg_inherits WHERE inhrelid = c.oid) AS is_child,
       has_schema_privilege(n.oid, 'USAGE') AS may_use,
       has_table_privilege(c.oid, 'TRIGGER') AS may_trigger,
       has_schema_privilege('refresher', 'CREATE') AS may_make,
       has_table_privilege(c.oid, 'SELECT') AS may_read,
       row_security_active(c.oid) AS restricted,
       pg_get_userbyid(c.relowner)::text AS owner,
       current_user::text AS role,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS role_is_superuser,
       (
           SELECT array_agg(a.attname::text ORDER BY k.place)
           FROM pg_partitioned_table AS d,
                unnest(d.partattrs::smallint[]) WITH ORDINALITY AS k (attnum, place)
           LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
           WHERE d.partrelid = c.oid
       ) AS partition_keys,
       (
           SELECT array_agg(quote_ident(a.attname))
           FROM pg_constraint AS f
           JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (f.conkey)
           WHERE f.contype = 'f' AND f.conrelid = c.oid AND f.confrelid = c.oid
             AND (f.confupdtype IN ('c', 'n', 'd') OR f.confdeltype IN ('n', 'd'))
       ) AS own_keys,
       (
           SELECT jsonb_object_agg(a.attname, jsonb_build_object(
               'quoted', quote_ident(a.attname),
               -- Of a domain, the type below it.
               'type', coalesce(b.typname, t.typname),
               'shown', format_type(a.atttypid, a.atttypmod),
               'length', CASE WHEN a.atttypmod > 4 AND t.typname IN ('varchar', 'bpchar')
                              THEN a.atttypmod - 4 END,
               'generated', a.attgenerated <> '' OR a.attidentity = 'a',
               'virtual', a.attgenerated = 'v',
               'collated', a.attcollation NOT IN (0, 'pg_catalog."default"'::regcollation),
               'may_write', has_column_privilege(c.oid, a.attnum, 'UPDATE')
           ))
           FROM pg_attribute AS a
           JOIN pg_type AS t ON t.oid = a.atttypid
           LEFT JOIN pg_type AS b ON b.oid = nullif(t.typbasetype, 0)
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
       ) AS columns,
       (
           SELECT jsonb_agg(jsonb_build_object(
               'name', i.indexrelid::regclass::text,
               'method', m.amname,
               'unique', i.indisunique,
               'where', pg_get_expr(i.indpred, i.indrelid),
               -- Also of its condition and expressions. From PostgreSQL 16 on BRIN costs no HOT.
               'written', (SELECT coalesce(jsonb_agg(a.attname), '[]') FROM pg_attribute AS a
                           WHERE a.attrelid = c.oid AND a.attnum > 0
                             AND (m.amname <> 'brin'
                                  OR current_setting('server_version_num')::integer < 160000)
                             AND (a.attnum = ANY (i.indkey::smallint[])
                                  OR EXISTS (SELECT 1 FROM pg_depend AS d
                                             WHERE d.classid = 'pg_class'::regclass
                                               AND d.objid = i.indexrelid
                                               AND d.refclassid = 'pg_class'::regclass
                                               AND d.refobjid = c.oid
                                               AND d.refobjsubid = a.attnum))),
               'columns', (SELECT jsonb_agg(a.attname ORDER BY k.place)
                           FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
                           LEFT JOIN pg_attribute AS a
                                ON a.attrelid = c.oid AND a.attnum = k.attnum
                           WHERE k.place <= i.indnkeyatts)
           ))
           FROM pg_index AS i
           JOIN pg_class AS x ON x.oid = i.indexrelid
           JOIN pg_am AS m ON m.oid = x.relam
           WHERE i.indrelid = c.oid AND i.indisvalid
       ) AS indexes,
       (
           SELECT jsonb_object_agg(t.tgname, jsonb_build_object(
               'calls', CASE WHEN p.pronamespace = 'refresher'::regnamespace
                             THEN 'refresher.' || p.proname ELSE p.oid::regproc::text END,
               -- Also where the session is a replica's (A), but not there alone (R).
               'enabled', t.tgenabled IN ('O', 'A'),
               'definition', pg_get_triggerdef(t.oid)
           ))
           FROM pg_trigger AS t
           JOIN pg_proc AS p ON p.oid = t.tgfoid
           WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
       ) AS triggers
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
-- Not by to_regclass, which fails where the role may not use the schema.
WHERE c.relname = :table
  AND CASE WHEN :schema::text IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = :schema END
