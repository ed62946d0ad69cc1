-- The share of the rate that an account has recovered to since its last 429. A 429 in the future,
-- as after the server's clock was set back, counts as just now.
least(1, a.rate_share + {{ rate_recovery_per_minute }} * greatest(0,
    extract(epoch FROM now()) - extract(epoch FROM a.rate_lowered_at)) / 60)
