-- Leads that have not changed for a week shrink to the half: the host may have mended its ways.
UPDATE refresher.cover_hosts
SET grown_seconds = CASE WHEN grown_seconds >= 2 * :least_seconds::float8
                         THEN grown_seconds / 2 ELSE 0 END,
    grown_at = now()
WHERE grown_seconds > 0 AND grown_at < now() - interval '7 days'
RETURNING host, grown_seconds
