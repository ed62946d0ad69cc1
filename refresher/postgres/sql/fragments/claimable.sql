-- What may be claimed now, out of the accounts that `who` names. Locked rows are skipped later.
-- During a pause of everything none is. It costs one look into `app`, and no account is read.
(SELECT paused_since FROM refresher.app) IS NULL
AND state = 'active'
AND {{ who }}
AND (lease_expires_at IS NULL OR lease_expires_at <= now())
AND next_slot_at <= now() + {{ horizon }}
-- An account that waits for a token is not claimed, even when videos are added. It waits for the
-- end of a back-off, or for another replica's token request, whose outcome may still be stored.
AND NOT (:managed AND {{ token_is_dead }}
         AND ((token_failures > 0 AND token_due_at > now())
              OR coalesce(token_request_until > now(), false)))
AND open_id <> ALL (:skipped)
