-- How many accounts each replica has leased.
SELECT lease_owner AS replica, count(*) AS leases
FROM refresher.accounts
WHERE lease_expires_at > now()
GROUP BY lease_owner
ORDER BY lease_owner
