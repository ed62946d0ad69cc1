-- The accounts that a replica works.
SELECT open_id
FROM refresher.accounts
WHERE lease_owner = :replica AND lease_expires_at > now()
ORDER BY open_id
