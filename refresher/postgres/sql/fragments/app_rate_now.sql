-- The app's rate after the last 429: it grows by the third power of the time since. A 429 in the
-- future counts as just now.
app.rate * power(2, power(greatest(0, least({{ app_rate_kept_seconds }}, (
    extract(epoch FROM now()) - extract(epoch FROM app.rate_lowered_at))::float8
    )) / {{ app_rate_doubled_seconds }}, 3))
