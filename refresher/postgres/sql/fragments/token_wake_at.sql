-- When the account must be awake for its token; never where another program renews tokens.
CASE WHEN :managed AND a.refresh_token IS NOT NULL
     THEN greatest({{ due }}, a.token_request_until) ELSE 'infinity' END
