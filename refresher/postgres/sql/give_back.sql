-- Undoes take_from_daemons: ends its pause, if the account was active before, and its lease.
WITH taken_account AS MATERIALIZED (
    SELECT open_id,
           :was = 'active' AND state = 'paused' AND state_reason = :reason AS resumed,
           lease_owner IS NOT DISTINCT FROM :owner AS leased, now() AS now
    FROM refresher.accounts
    WHERE open_id = :open_id
    FOR NO KEY UPDATE
)
UPDATE refresher.accounts AS a
SET state = CASE WHEN t.resumed THEN 'active' ELSE a.state END,
    state_reason = CASE WHEN t.resumed THEN NULL ELSE a.state_reason END,
    state_since = CASE WHEN t.resumed THEN :since ELSE a.state_since END,
    wake_at = CASE WHEN t.leased THEN least(a.wake_at, t.now) ELSE a.wake_at END,
    lease_owner = CASE WHEN t.leased THEN NULL ELSE a.lease_owner END,
    lease_expires_at = CASE WHEN t.leased THEN NULL ELSE a.lease_expires_at END
FROM taken_account AS t
WHERE a.open_id = t.open_id
