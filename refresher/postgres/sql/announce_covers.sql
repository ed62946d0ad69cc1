-- Announces to those who listen which covers have changed; says how many payloads were sent. None while the
-- queue is half full, as somebody has listened and not read for long: full, it would refuse all.
SELECT count(pg_notify('refresher_covers', payload))
FROM unnest(:payloads::text[]) AS payload
WHERE (SELECT pg_notification_queue_usage()) < 0.5
