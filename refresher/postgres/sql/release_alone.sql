-- For as long as it is told, and under a name of this statement's own.
{{ releasing patience="SELECT set_config('lock_timeout', :lock_timeout, true),
               set_config('application_name', :session_name, true)" }}
