-- Sessions of other roles: without pg_read_all_stats their snapshots are not shown.
SELECT count(*)
FROM pg_stat_activity
WHERE datname = current_database()
      AND usename <> current_user
      AND NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
      AND NOT pg_has_role(current_user, usesysid, 'USAGE')
