-- How long ago TikTok refused these app credentials, and the rate of the app that was found.
SELECT CASE WHEN app.refused_client = :credentials
            THEN extract(epoch FROM now() - app.client_refused_at)::float8 END AS refused_seconds_ago,
       {{ app_rate_found }} AS found_per_minute
FROM refresher.app
