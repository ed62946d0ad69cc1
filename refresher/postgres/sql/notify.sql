-- Notifies who listens to the channel: NOTIFY takes no parameters.
SELECT pg_notify(:channel, '')
