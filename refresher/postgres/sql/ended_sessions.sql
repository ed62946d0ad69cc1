-- Which of these sessions have ended: nobody holds their locks. No table is read, as the locks are
-- those of the server that we are connected to.
SELECT session
FROM unnest(:sessions::bigint[]) AS said (session)
WHERE pg_try_advisory_xact_lock_shared(session)
