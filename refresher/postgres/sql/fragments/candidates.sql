-- While nobody is answered: is it TikTok, or only the accounts that we asked? Candidates are due
-- accounts, and accounts that have not failed since anybody was answered. Of the latter we take
-- those that sleep longest: they were answered last. A trial asks for their next-due videos.
open_id = ANY (ARRAY(
    (SELECT open_id FROM refresher.accounts
     WHERE state = 'active' AND wake_at <= now()
     ORDER BY wake_at
     LIMIT {{ trial_candidates }})
    UNION ALL
    (SELECT open_id FROM refresher.accounts
     WHERE state = 'active' AND wake_at < 'infinity' AND videos > 0
       AND failures = 0 AND isolated_since IS NULL AND open_id <> ALL (:tried::text[])
     ORDER BY wake_at DESC
     LIMIT {{ trial_candidates }})
))
