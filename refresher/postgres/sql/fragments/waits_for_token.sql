-- An account that waits for a token is not claimed, even when videos are added. It waits for the
-- end of a back-off, or for another replica's token request, whose outcome may still be stored.
(:managed AND {{ token_is_dead }}
 AND ((token_failures > 0 AND token_due_at > now())
      OR coalesce(token_request_until > now(), false)))
