-- No row if it has grown as far already.
INSERT INTO refresher.cover_hosts AS h (host, grown_seconds, grown_at, forward_to)
VALUES (:host, :grown_seconds, now(), '')
ON CONFLICT (host) DO UPDATE
SET grown_seconds = excluded.grown_seconds, grown_at = excluded.grown_at, forward_to = ''
WHERE h.grown_seconds < excluded.grown_seconds
RETURNING true
