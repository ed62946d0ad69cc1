-- How many sessions listen on `channel`: it is the last thing that they have said. The query of a
-- session that the role may not see into is another text.
SELECT count(*)
FROM pg_stat_activity
WHERE datname = current_database()
  AND query = 'LISTEN "' || :channel::text || '"'
