-- The session of a replica counts no more, if it has no other one by now. One row, of whoever is first.
UPDATE refresher.replicas
SET session = NULL
WHERE replica = :replica AND session = :session
RETURNING replica
