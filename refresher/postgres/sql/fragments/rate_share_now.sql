-- What an account's rate has recovered to, and what the app's has grown to, since the last 429. One
-- that lies in the future, as the server's clock was set back, counts as just now.
least(1, a.rate_share + {{ rate_recovery_per_minute }} * greatest(0,
    extract(epoch FROM now()) - extract(epoch FROM a.rate_lowered_at)) / 60)
