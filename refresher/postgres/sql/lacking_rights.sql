-- What the daemon needs and the role may not do; docs/security.md grants it. The catalogue is read
-- even by a role that may not use the schema.
WITH ours AS (
    SELECT oid, nspname::text FROM pg_namespace WHERE nspname = 'refresher'
), needed (relname, rights) AS (
    VALUES ('accounts', ARRAY['SELECT', 'UPDATE']),
           ('videos', ARRAY['SELECT', 'UPDATE']),
           ('app', ARRAY['SELECT', 'UPDATE']),
           ('audit', ARRAY['SELECT', 'UPDATE']),
           ('replicas', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
           ('outbox', ARRAY['SELECT', 'UPDATE', 'DELETE']),
           ('cover_hosts', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('probes', ARRAY['SELECT', 'INSERT', 'DELETE']),
           ('probing', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('attachments', ARRAY['SELECT', 'UPDATE']),
           ('changed_rows', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
           ('changed_covers', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
           ('alembic_version', ARRAY['SELECT'])
)
SELECT 'USAGE on schema ' || nspname AS lacking
FROM ours
WHERE NOT has_schema_privilege(oid, 'USAGE')
UNION ALL
SELECT allowed.name || ' on ' || nspname || '.' || c.relname
FROM needed
JOIN ours ON true
JOIN pg_class AS c ON c.relnamespace = ours.oid AND c.relname = needed.relname
CROSS JOIN unnest(needed.rights) AS allowed (name)
WHERE NOT has_table_privilege(c.oid, allowed.name)
UNION ALL
SELECT 'EXECUTE on ' || nspname || '.' || proname
FROM ours
JOIN pg_proc ON pronamespace = ours.oid
WHERE NOT has_function_privilege(pg_proc.oid, 'EXECUTE')
  -- A trigger calls its function without that right.
  AND prorettype <> 'trigger'::regtype
