-- How an attachment stands. One row.
SELECT walked_at, now() AS now,
       -- What was put off does not wait before it is due again.
       (SELECT min(greatest(told_at, not_before)) FROM refresher.changed_rows
        WHERE attachment = :name) AS told_rows,
       (SELECT min(greatest(told_at, not_before)) FROM refresher.changed_covers
        WHERE attachment = :name) AS told_covers,
       (
           SELECT jsonb_object_agg('refresher.' || p.proname, jsonb_build_object(
               'body', p.prosrc,
               'owner', r.rolname,
               'owner_is_superuser', r.rolsuper,
               'definer', p.prosecdef,
               'settings', p.proconfig,
               'tells', has_table_privilege(p.proowner, 'refresher.changed_rows', 'INSERT')
                        AND has_function_privilege(p.proowner, 'refresher.tell_daemons()', 'EXECUTE'),
               'may_call', has_function_privilege(p.oid, 'EXECUTE'),
               'reads', (SELECT bool_and(has_table_privilege(p.proowner, t, 'SELECT'))
                         FROM unnest(a.tables) AS t
                         WHERE to_regclass(t) IS NOT NULL)
           ))
           FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner
           WHERE p.pronamespace = 'refresher'::regnamespace
             AND p.proname ~ ('^attached_' || a.name || '_(apply|look_at|carry|next|(account_)?told)$')
       ) AS functions,
       (
           SELECT array_agg(DISTINCT f.attached || ' is called ' || n.now || ' now')
           FROM (VALUES (a.tables[1], '_told'), (a.tables[2], '_account_told'))
                AS f (attached, suffix)
           JOIN pg_proc AS p
                ON p.pronamespace = 'refresher'::regnamespace
                AND p.proname = 'attached_' || a.name || f.suffix
           JOIN pg_trigger AS t ON t.tgfoid = p.oid
           JOIN pg_class AS c ON c.oid = t.tgrelid
           JOIN pg_namespace AS s ON s.oid = c.relnamespace,
                LATERAL (SELECT format('%I.%I', s.nspname, c.relname)) AS n (now)
           WHERE n.now <> f.attached
       ) AS renamed,
       (
           SELECT pg_get_triggerdef(oid) FROM pg_trigger
           WHERE tgrelid = 'refresher.videos'::regclass AND tgname = 'videos_carried'
             AND tgenabled IN ('O', 'A')
       ) AS videos_carried
FROM refresher.attachments AS a
WHERE name = :name
