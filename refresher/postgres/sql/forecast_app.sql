-- What the app's row says about the quota: a rate that was found counts for some minutes only.
SELECT extract(epoch FROM now())::float8 AS now,
       CASE WHEN rate_lowered_at > now() - interval '{{ app_rate_kept_seconds }} seconds'
            THEN rate END AS rate,
       extract(epoch FROM next_slot_at)::float8 AS free_at,
       extract(epoch FROM paused_since)::float8 AS paused_since
FROM refresher.app
