-- Something is due, or an account was woken.
a.state = 'active' AND (a.earliest_due_at <= now() OR a.wake_at <= now())
