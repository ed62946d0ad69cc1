-- Rows that are locked are skipped: only an application's trigger may wait, and not for long.
{{ releasing patience="SELECT set_config('lock_timeout', '200ms', true)" }}
