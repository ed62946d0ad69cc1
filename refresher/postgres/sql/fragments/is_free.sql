-- No replica has a lease on the account.
(lease_expires_at IS NULL OR lease_expires_at <= now())
