-- How many accounts each replica works.
SELECT lease_owner AS replica, count(*) AS leases
FROM refresher.accounts
WHERE lease_expires_at > now()
GROUP BY lease_owner
