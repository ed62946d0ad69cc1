-- The accounts that a failed claim may have tried to lease.
SELECT open_id
FROM refresher.accounts AS a
WHERE {{ claimable who="{{ is_due }}" horizon=":horizon::interval" }}
ORDER BY wake_at
LIMIT :accounts
