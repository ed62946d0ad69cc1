-- The sessions that other replicas keep open, as they have said.
SELECT replica, session
FROM refresher.replicas
WHERE session IS NOT NULL AND replica <> :replica
