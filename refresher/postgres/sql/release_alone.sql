-- One or a few that have met a lock: waits as long as it is told, under a session name of its own,
-- by which another session finds out who holds the lock.
{{ releasing patience="SELECT set_config('lock_timeout', :lock_timeout, true),
               set_config('application_name', :session_name, true)" }}
