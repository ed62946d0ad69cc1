-- Such accounts a claim takes.
wake_at <= now()
