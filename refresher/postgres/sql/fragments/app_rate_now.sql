app.rate * power(2, power(greatest(0, least({{ app_rate_kept_seconds }}, (
    extract(epoch FROM now()) - extract(epoch FROM app.rate_lowered_at))::float8
    )) / {{ app_rate_doubled_seconds }}, 3))
