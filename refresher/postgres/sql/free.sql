WITH waiting AS MATERIALIZED (
    {{ waiting_for_credentials }}
      AND a.open_id = ANY (:open_ids::text[])
    FOR NO KEY UPDATE OF a SKIP LOCKED
),
impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
)
UPDATE refresher.accounts AS a
SET token_due_at = now(),
    -- Not of an account in work: there the end of its lease stands.
    wake_at = CASE WHEN a.lease_expires_at > now() THEN a.wake_at ELSE least(a.wake_at, now()) END
FROM waiting
WHERE a.open_id = waiting.open_id
  AND (SELECT count(*) FROM impatient) > 0
RETURNING a.open_id
