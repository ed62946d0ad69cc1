-- Notes the warning that is due for `ending_consents`.
patience AS MATERIALIZED (
    {{ patience }}
),
warned AS (
    UPDATE refresher.accounts AS a
    SET consent_warned_days = CASE
        WHEN a.refresh_token_expires_at <= c.now THEN 0
        WHEN a.refresh_token_expires_at <= c.last_days_end THEN {{ consent_last_days }}
        ELSE {{ consent_first_days }} END
    FROM ending_consents AS c
    WHERE a.open_id = c.open_id
      AND (SELECT count(*) FROM patience) > 0
    RETURNING a.open_id, a.refresh_token_expires_at, a.consent_warned_days
)
SELECT open_id, refresh_token_expires_at, consent_warned_days FROM warned
