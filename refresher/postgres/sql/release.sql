-- Rows that are locked are skipped: only the trigger of an application may wait.
{{ releasing patience="SELECT set_config('lock_timeout', '200ms', true)" }}
