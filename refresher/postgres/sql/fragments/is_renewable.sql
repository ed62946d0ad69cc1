-- A refresh token that can still bring a new access token.
(refresh_token IS NOT NULL AND coalesce(refresh_token_expires_at > now(), true))
