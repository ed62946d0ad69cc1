-- Notes the warning that is due for `ending_consents`.
patience AS MATERIALIZED (
    {{ patience }}
)
UPDATE refresher.accounts AS a
SET consent_warned_days = CASE
    WHEN a.refresh_token_expires_at <= now() THEN 0
    WHEN a.refresh_token_expires_at <= now() + interval '{{ consent_last_days }} days'
    THEN {{ consent_last_days }}
    ELSE {{ consent_first_days }} END
FROM ending_consents
WHERE a.open_id = ending_consents.open_id
  AND (SELECT count(*) FROM patience) > 0
RETURNING a.open_id, a.refresh_token_expires_at, a.consent_warned_days
