-- The distance of two slots of the app: by the configured limit, and by the rate that was found to
-- hold, for some minutes after the 429 that showed it.
greatest(:app_step::interval, CASE
    WHEN app.rate IS NOT NULL
         AND app.rate_lowered_at > now() - interval '{{ app_rate_kept_seconds }} seconds'
    THEN interval '1 second' * {{ app_window_seconds }} / ({{ app_rate_now }}) END)
