-- Why an access token stays dead.
CASE WHEN a.refresh_token IS NULL THEN 'no_refresh_token'
     WHEN a.refresh_token_expires_at <= now() THEN 'consent_ended'
     WHEN a.token_failures > 0 THEN 'renewal_failed'
     ELSE 'not_renewed' END
