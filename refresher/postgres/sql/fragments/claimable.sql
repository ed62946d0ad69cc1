-- What may be claimed now, of what `who` names, apart from rows that others have locked.
state = 'active'
AND {{ who }}
AND (lease_expires_at IS NULL OR lease_expires_at <= now())
AND next_slot_at <= now() + {{ horizon }}
-- New videos do not cut short the wait for a token that they need: a back-off, or a request of
-- another replica whose outcome may still be stored.
AND NOT (:managed AND {{ token_is_dead }}
         AND ((token_failures > 0 AND token_due_at > now())
              OR coalesce(token_request_until > now(), false)))
AND open_id <> ALL (:skipped)
