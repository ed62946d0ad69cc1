-- Set for the role or the database, read-only lasts until somebody changes it. Set by the server it
-- may pass: some do so while their disk is full, and a standby may be promoted.
SELECT source IN ('database', 'user', 'database user', 'client')
FROM pg_settings
WHERE name = 'default_transaction_read_only'
    AND setting = 'on'
