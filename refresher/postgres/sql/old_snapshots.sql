-- What keeps dead row versions from being cleared. A vacuum's own snapshot does not.
SELECT format('transaction of process %s (%s, %s)', pid, coalesce(nullif(application_name, ''),
              'no name'), coalesce(state, backend_type)) AS what,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS since_seconds,
       format('end it: SELECT pg_terminate_backend(%s)', pid) AS remedy
FROM pg_stat_activity
WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
      AND xact_start IS NOT NULL
      AND backend_type <> 'autovacuum worker'
      AND pid <> pg_backend_pid()
      AND (datname = current_database() OR datname IS NULL)
UNION ALL
SELECT format('prepared transaction %s', gid),
       extract(epoch FROM clock_timestamp() - prepared)::float8,
       format('COMMIT PREPARED %L or ROLLBACK PREPARED %L', gid, gid)
FROM pg_prepared_xacts
WHERE database = current_database()
UNION ALL
-- One that nobody uses stays for ever.
SELECT format('replication slot %s, which nobody uses,', slot_name),
       NULL,
       format('start its standby, or SELECT pg_drop_replication_slot(%L)', slot_name)
FROM pg_replication_slots
WHERE NOT active AND xmin IS NOT NULL
ORDER BY since_seconds DESC NULLS FIRST
