-- The time between two slots of the app. It follows the configured limit and, for some minutes
-- after a 429 that showed a limit of the app, the rate that was found.
greatest(:app_step::interval, CASE
    WHEN app.rate IS NOT NULL
         AND app.rate_lowered_at > now() - interval '{{ app_rate_kept_seconds }} seconds'
    THEN interval '1 second' * {{ app_window_seconds }} / ({{ app_rate_now }}) END)
