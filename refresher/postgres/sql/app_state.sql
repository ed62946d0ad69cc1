-- What holds for the app as a whole. `learned_per_minute` is NULL where no limit has shown.
SELECT {{ app_rate_found }} AS learned_per_minute,
       CASE WHEN isfinite(app.rate_lowered_at) THEN app.rate_lowered_at END AS throttled_at,
       app.paused_since,
       app.refused_client,
       CASE WHEN isfinite(app.client_refused_at) THEN app.client_refused_at END AS client_refused_at
FROM refresher.app
