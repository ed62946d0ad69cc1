-- A replica says that it runs.
INSERT INTO refresher.replicas AS r (replica, version, seen_at, progress_at)
VALUES (:replica, :version, now(), CASE WHEN :progressed THEN now() END)
ON CONFLICT (replica) DO UPDATE
SET seen_at = excluded.seen_at, progress_at = coalesce(excluded.progress_at, r.progress_at)
