-- An account's own distance of two slots, at its share of the rate.
CASE WHEN share < 1
     THEN greatest(pace.step, interval '{{ assumed_step_seconds }} seconds') / share
     ELSE pace.step END
