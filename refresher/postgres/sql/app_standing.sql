-- How long ago TikTok refused these app credentials, and the rate of the app that was found.
SELECT CASE WHEN app.refused_client = :credentials
            THEN extract(epoch FROM now() - app.client_refused_at)::float8 END AS refused_seconds_ago,
       CASE WHEN app.rate IS NOT NULL
                 AND app.rate_lowered_at
                     > now() - interval '{{ app_rate_kept_seconds }} seconds'
            THEN {{ app_rate_now }} END AS found_per_minute
FROM refresher.app
