-- An account's own distance of two slots, by its share of the rate. Reads `rate_share` and `pace`.
CASE WHEN rate_share < 1
     THEN greatest(pace.step, interval '{{ assumed_step_seconds }} seconds') / rate_share
     ELSE pace.step END
