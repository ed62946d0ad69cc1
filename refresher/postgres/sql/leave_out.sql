-- The account's own newer pair stays. A trigger would keep it, too, but could not tell us here.
DELETE FROM staged_accounts WHERE open_id = ANY (:open_ids::text[])
