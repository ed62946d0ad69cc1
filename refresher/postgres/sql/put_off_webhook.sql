-- A webhook was not delivered. Changes nothing if somebody else has taken it since.
UPDATE refresher.outbox
SET next_attempt_at = now() + :wait::interval
WHERE webhook_id = :webhook_id::text::uuid AND attempts = :attempts
