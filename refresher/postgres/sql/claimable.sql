-- Whom a claim that failed may have picked.
SELECT open_id
FROM refresher.accounts AS a
WHERE {{ claimable who="{{ is_due }}" horizon=":horizon::interval" }}
ORDER BY wake_at
LIMIT :accounts
