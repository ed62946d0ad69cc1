-- Triggers that must fire for rows of a subscription, too. Whoever enables all triggers of their
-- table (`pg_restore --disable-triggers` does) turns that off. A disabled trigger stays disabled,
-- and only an owner can change one. A partition's trigger follows its table's.
SELECT DISTINCT
       format('ALTER TABLE refresher.%I ENABLE %s TRIGGER %I', tables.name, mode, tgname)
FROM (VALUES ('videos', 'REPLICA', ARRAY['videos_rewritten_elsewhere', 'videos_replicated']),
             ('videos', 'ALWAYS', ARRAY['videos_given']),
             ('accounts', 'ALWAYS', ARRAY['tokens_added', 'tokens_kept', 'tokens_replaced']))
     AS tables (name, mode, triggers)
CROSS JOIN LATERAL to_regclass('refresher.' || tables.name) AS named
JOIN pg_trigger ON tgname = ANY (tables.triggers) AND tgenabled = 'O'
JOIN pg_class ON pg_class.oid = tgrelid AND pg_has_role(relowner, 'USAGE')
WHERE tgrelid = named OR tgrelid IN (SELECT relid FROM pg_partition_tree(named))
ORDER BY 1
