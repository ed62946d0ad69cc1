-- Since when an account has something due. Until new videos are counted, its wake-up tells. One that
-- was passed over wakes at -infinity.
CASE WHEN a.earliest_due_at <= now() THEN a.earliest_due_at
     WHEN isfinite(a.wake_at) THEN a.wake_at END
