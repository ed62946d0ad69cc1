-- The server, and the settings that a pooler may keep us from setting. The process differs from the
-- one that greeted us behind a pooler.
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::integer AS version_number,
       pg_backend_pid() AS process,
       clock_timestamp() AS now,
       (SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'lock_timeout') AS lock_timeout,
       current_setting('jit')::boolean AS jit
