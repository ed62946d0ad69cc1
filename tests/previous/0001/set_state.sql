-- Revision 0001, refresher/postgres/status.py
UPDATE refresher.accounts
SET state = :state,
    state_reason = :reason,
    state_since = CASE WHEN state = :state THEN state_since ELSE now() END,
    wake_at = CASE WHEN lease_expires_at > now() THEN wake_at ELSE least(wake_at, now()) END
WHERE open_id = :open_id
