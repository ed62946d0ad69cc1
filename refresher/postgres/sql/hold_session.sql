-- Taken on the connection that a replica keeps open: the server lets go of it when that one ends.
SELECT pg_advisory_lock(:session)
