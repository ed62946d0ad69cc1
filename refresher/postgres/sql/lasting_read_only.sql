-- Set for the role or the database it lasts until somebody changes it. A server that sets it, as
-- some do whose disk is full, may take it back, and a standby may be promoted.
SELECT source IN ('database', 'user', 'database user', 'client')
FROM pg_settings
WHERE name = 'default_transaction_read_only'
    AND setting = 'on'
