-- The time between two slots of an account, by its share of the rate. Reads `rate_share` and
-- `pace`.
CASE WHEN rate_share < 1
     THEN greatest(pace.step, interval '{{ assumed_step_seconds }} seconds') / rate_share
     ELSE pace.step END
