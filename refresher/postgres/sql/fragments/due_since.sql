-- Since when an account has something due. Until new videos are counted, its wake-up tells. One that
-- was passed over wakes at -infinity, and one that is worked at the end of its lease.
CASE WHEN a.earliest_due_at <= now() THEN a.earliest_due_at
     WHEN isfinite(a.wake_at) AND a.wake_at <= now() THEN a.wake_at END
