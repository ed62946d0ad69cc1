-- Whether an account is stored.
SELECT EXISTS (SELECT FROM refresher.accounts WHERE open_id = :open_id)
