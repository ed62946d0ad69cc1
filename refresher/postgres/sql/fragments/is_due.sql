-- Whom a claim takes.
wake_at <= now()
