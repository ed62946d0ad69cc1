-- The replicas that say that they run, and how long ago each last did.
SELECT replica AS name, version,
       extract(epoch FROM clock_timestamp() - seen_at)::float8 AS silent_seconds
FROM refresher.replicas
ORDER BY replica
