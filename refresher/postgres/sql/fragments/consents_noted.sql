impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
)
UPDATE refresher.accounts AS a
SET consent_warned_days = CASE
    WHEN a.refresh_token_expires_at <= now() THEN 0
    WHEN a.refresh_token_expires_at <= now() + interval '3 days' THEN 3
    ELSE 14 END
FROM ending
WHERE a.open_id = ending.open_id
  AND (SELECT count(*) FROM impatient) > 0
RETURNING a.open_id, a.refresh_token_expires_at, a.consent_warned_days
