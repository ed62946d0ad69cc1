-- While nobody is answered: is it TikTok, or the accounts that were asked? Candidates are the
-- accounts that are due, and accounts that have not failed since somebody was answered. Of these
-- the ones that sleep longest were answered last: they are asked for what is due next.
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
