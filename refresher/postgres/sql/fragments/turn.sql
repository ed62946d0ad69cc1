-- The order in which a claim takes the videos of an account. A video without a cover in its last
-- answer is no top-up: it might spoil the request for the others.
CASE WHEN due_at > now() THEN CASE WHEN misses = 0 THEN {{ turn_top_up }} END
     WHEN NOT refused THEN {{ turn_due }}
     -- We ask for a refused video alone, when nothing else is due or when it has waited too long
     -- (starved). An isolated account has one try, which must not go to a starved video.
     WHEN due_at < now() - interval '{{ alone_waits_seconds }} seconds'
          AND NOT {{ isolated }} THEN {{ turn_starved }}
     ELSE {{ turn_alone }} END
