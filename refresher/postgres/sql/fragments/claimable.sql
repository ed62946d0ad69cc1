-- What may be claimed now, out of the accounts that `who` names. Locked rows are skipped later.
-- During a pause of everything none is. It costs one look into `app`, and no account is read.
(SELECT paused_since FROM refresher.app) IS NULL
AND state = 'active'
AND {{ who }}
AND {{ is_free }}
AND {{ slot_is_near horizon="{{ horizon }}" }}
AND NOT {{ waits_for_token }}
AND open_id <> ALL (:skipped)
