-- An account's share of the rate, which recovers after its last 429. A 429 in the future counts as
-- just now: the server's clock may have been set back.
least(1, a.rate_share + {{ rate_recovery_per_minute }} * greatest(0,
    extract(epoch FROM now()) - extract(epoch FROM a.rate_lowered_at)) / 60)
