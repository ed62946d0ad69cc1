-- All leases of a session that has ended are ended.
UPDATE refresher.replicas SET session = NULL WHERE replica = :replica AND session = :session
