-- Since when an access token is dead, as far as anybody knows.
least(now(), CASE WHEN a.access_token_expires_at <= now() THEN a.access_token_expires_at
                  ELSE coalesce(a.last_failure_at, a.state_since) END)
