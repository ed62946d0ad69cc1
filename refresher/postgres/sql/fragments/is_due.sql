-- The accounts that a claim takes.
wake_at <= now()
