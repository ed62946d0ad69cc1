-- When TikTok refused the app credentials in use; NULL: not lately. `:credentials` is their
-- fingerprint, NULL where we renew no token.
CASE WHEN app.refused_client = :credentials
          AND app.client_refused_at >= now() - interval '{{ refused_seconds }} seconds'
     THEN app.client_refused_at END
