-- The triggers of an attachment on an application's tables, whatever those are called now.
SELECT quote_ident(t.tgname) AS trigger, format('%I.%I', n.nspname, c.relname) AS table
FROM pg_trigger AS t
JOIN pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_class AS c ON c.oid = t.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.pronamespace = 'refresher'::regnamespace
  AND p.proname IN ('attached_' || :name || '_told', 'attached_' || :name || '_account_told')
ORDER BY t.oid
