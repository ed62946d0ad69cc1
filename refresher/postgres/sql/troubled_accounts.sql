-- How many accounts are in which state, and why. An isolated account is active, and has a reason
-- that names a request: its code alone says what is common to several.
SELECT CASE WHEN isolated_since IS NOT NULL AND state = 'active' THEN 'isolated' ELSE state END
           AS state,
       CASE WHEN isolated_since IS NOT NULL AND state = 'active'
            THEN split_part(isolated_reason, ',', 1)
            WHEN state <> 'active' THEN state_reason END AS reason,
       count(*) AS accounts,
       min(CASE WHEN state = 'active' THEN isolated_since ELSE state_since END) AS first_since
FROM refresher.accounts
GROUP BY 1, 2
ORDER BY 1, 2
