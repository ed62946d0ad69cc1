-- Pauses or resumes an account. Resume means now: the back-off of its token and its isolation end,
-- too. What we cannot end stays: the pause after a 429, and a token request whose outcome may still
-- be stored. Other ways to revive an account: docs/decisions/0021.
WITH account_before AS MATERIALIZED (
    SELECT open_id, state, state_since
    FROM refresher.accounts
    WHERE open_id = :open_id
    FOR NO KEY UPDATE
),
told AS MATERIALIZED (
    SELECT CASE WHEN :state = 'active' THEN refresher.tell_daemons() END
)
UPDATE refresher.accounts AS a
SET state = :state,
    state_reason = :reason,
    state_since = CASE WHEN a.state = :state THEN a.state_since ELSE now() END,
    token_due_at = CASE WHEN :state = 'active' AND a.token_failures > 0
                        THEN least(a.token_due_at, now()) ELSE a.token_due_at END,
    -- Slots of an account in work stay as they are.
    isolated_since = CASE WHEN :state <> 'active' THEN a.isolated_since END,
    isolated_reason = CASE WHEN :state <> 'active' THEN a.isolated_reason END,
    failures = CASE WHEN :state = 'active' AND a.isolated_since IS NOT NULL THEN 0
                    ELSE a.failures END,
    next_slot_at = CASE WHEN :state = 'active' AND a.isolated_since IS NOT NULL
                             AND coalesce(a.lease_expires_at, now()) <= now()
                        THEN least(a.next_slot_at, now()) ELSE a.next_slot_at END,
    wake_at = CASE WHEN a.lease_expires_at > now() THEN a.wake_at ELSE least(a.wake_at, now()) END
FROM account_before
WHERE a.open_id = account_before.open_id
  AND (SELECT count(*) FROM told) > 0
RETURNING account_before.state AS was, a.state AS is_, account_before.state_since AS since,
          now() AS now,
          coalesce(a.lease_expires_at > now(), false) AS leased,
          greatest(a.next_slot_at, a.token_request_until, now()) AS free_at,
          a.refresh_token IS NOT NULL AS refreshable,
          a.token_due_at <= now() AS token_due,
          {{ token_is_dead }} AS token_dead
