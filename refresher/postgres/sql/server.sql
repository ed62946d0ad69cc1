-- The server itself is asked: a pooler tells of the server as it was when it first connected. Its
-- start tells one server from another, whichever pooler leads to it; as a number, since its text
-- depends on the session's time zone, which a pooler may set.
SELECT pg_is_in_recovery() AS is_standby,
    current_setting('transaction_read_only') = 'on' AS is_read_only,
    extract(epoch FROM pg_postmaster_start_time())::float8 AS started_at
