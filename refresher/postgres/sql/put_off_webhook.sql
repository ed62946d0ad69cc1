-- A webhook was not delivered. Changes nothing if somebody else has taken it since.
UPDATE refresher.outbox
SET next_attempt_at = now() + :wait::interval
WHERE id = :id AND attempts = :attempts
