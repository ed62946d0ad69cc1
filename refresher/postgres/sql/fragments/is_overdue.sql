-- Something is due, or an account was woken, or is worked.
a.state = 'active'
AND (a.earliest_due_at <= now() OR a.wake_at <= now() OR a.lease_expires_at > now())
