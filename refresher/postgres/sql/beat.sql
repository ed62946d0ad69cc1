-- A replica says that it runs. The rows of those that have not been seen for a day go.
WITH forgotten_replicas AS (
    DELETE FROM refresher.replicas
    WHERE seen_at < now() - interval '1 day' AND replica <> :replica
)
INSERT INTO refresher.replicas AS r (replica, version, progress_at)
VALUES (:replica, :version, CASE WHEN :progressed THEN now() END)
ON CONFLICT (replica) DO UPDATE
SET seen_at = now(), progress_at = coalesce(excluded.progress_at, r.progress_at)
