-- Asks the server itself: a pooler would answer with what it learnt when it first connected. Two
-- poolers lead to the same server if it was started at the same time. A number, because the text of
-- a time depends on the session's time zone, which a pooler may set.
SELECT pg_is_in_recovery() AS is_standby,
    current_setting('transaction_read_only') = 'on' AS is_read_only,
    extract(epoch FROM pg_postmaster_start_time())::float8 AS started_at
