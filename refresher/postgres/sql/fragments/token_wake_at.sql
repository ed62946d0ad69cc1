-- The wake-up that an account's token asks for: none where others refresh it.
CASE WHEN :managed AND a.refresh_token IS NOT NULL
     THEN greatest({{ due }}, a.token_request_until) ELSE 'infinity' END
