-- What an operator is shown of an account before it is removed. No row: it is not stored.
SELECT state, state_since, CASE WHEN NOT {{ is_free }} THEN lease_owner END AS worked_by
FROM refresher.accounts
WHERE open_id = :open_id
