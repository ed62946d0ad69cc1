-- The account's own newer pair stays; a trigger would see to it, too, but not say so here.
DELETE FROM staged_accounts WHERE open_id = ANY (:open_ids::text[])
