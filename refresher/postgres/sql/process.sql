-- The server process that serves us.
SELECT pg_backend_pid()
