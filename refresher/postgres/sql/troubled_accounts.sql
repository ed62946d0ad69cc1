-- How many accounts are in which state, and why.
SELECT {{ kind_of_account }} AS state,
       {{ kind_reason }} AS reason,
       count(*) AS accounts,
       min({{ kind_since }}) AS first_since
FROM refresher.accounts
GROUP BY 1, 2
ORDER BY 1, 2
