-- How many active accounts are isolated.
SELECT count(*) FROM refresher.accounts WHERE isolated_since IS NOT NULL AND state = 'active'
