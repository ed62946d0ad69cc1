-- The rate that the app's last 429s have shown, a minute; NULL where none have lately. The pace grows
-- from it, to find out whether the limit has changed: that is no measure of the quota.
CASE WHEN app.rate_lowered_at > now() - interval '{{ app_rate_kept_seconds }} seconds'
     THEN app.rate END
