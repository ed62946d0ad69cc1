-- Whether an account is stored.
SELECT EXISTS (SELECT 1 FROM refresher.accounts WHERE open_id = :open_id)
