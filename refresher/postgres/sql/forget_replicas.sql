-- The rows of replicas that have not been seen for a day go. By itself, as Citus wants an INSERT.
DELETE FROM refresher.replicas WHERE seen_at < now() - interval '1 day' AND replica <> :replica
