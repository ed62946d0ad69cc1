-- While nobody is answered: is it TikTok, or those that were asked? Accounts go first that have not
-- failed since somebody was answered, and of those the ones that were well before; by chance, as
-- the bad ones may all be due together. So one that is not due is asked, too, for what is due next:
-- those that sleep longest were answered last.
open_id = ANY (ARRAY(
    (SELECT open_id FROM refresher.accounts
     WHERE state = 'active' AND wake_at <= now()
     ORDER BY wake_at
     LIMIT {{ probe_candidates }})
    UNION ALL
    (SELECT open_id FROM refresher.accounts
     WHERE state = 'active' AND wake_at < 'infinity' AND videos > 0
       AND failures = 0 AND isolated_since IS NULL AND open_id <> ALL (:tried::text[])
     ORDER BY wake_at DESC
     LIMIT {{ probe_candidates }})
))
