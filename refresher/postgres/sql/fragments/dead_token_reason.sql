-- Why an access token stays dead.
CASE WHEN NOT :managed THEN 'renewed_elsewhere'
     WHEN a.refresh_token IS NULL THEN 'no_refresh_token'
     WHEN a.refresh_token_expires_at <= now() THEN 'consent_ended'
     ELSE 'renewal_put_off' END
