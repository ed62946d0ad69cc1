-- One row: from here on the statement waits for locks no longer than this. It skips accounts that
-- others have locked, so only an application's trigger can wait.
SELECT set_config('lock_timeout', '{{ trigger_waits_ms }}ms', true)
