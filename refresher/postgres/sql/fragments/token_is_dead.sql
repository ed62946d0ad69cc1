-- An access token that must not be sent any more.
(a.access_token IS NULL OR a.token_standing = 'refused'
 OR coalesce(a.access_token_expires_at <= now(), false))
