-- What the app's row says about the quota: a rate that was found counts for some minutes only.
SELECT extract(epoch FROM now())::float8 AS now,
       {{ app_rate_found }} AS rate,
       extract(epoch FROM next_slot_at)::float8 AS free_at,
       extract(epoch FROM paused_since)::float8 AS paused_since,
       extract(epoch FROM {{ credentials_refused_at }})::float8 AS client_refused_at
FROM refresher.app
