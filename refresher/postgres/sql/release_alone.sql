-- Releases what has met a lock, and waits for the lock as long as it is told. Its session has a
-- name of its own, by which another session finds out who holds the lock.
{{ releasing patience="SELECT set_config('lock_timeout', :lock_timeout, true),
               set_config('application_name', :session_name, true)" }}
