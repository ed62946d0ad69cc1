-- When the token wants its account awake: never where others renew it.
CASE WHEN :managed AND a.refresh_token IS NOT NULL
     THEN greatest({{ due }}, a.token_request_until) ELSE 'infinity' END
