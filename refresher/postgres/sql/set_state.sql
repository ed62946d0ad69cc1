-- Pauses or resumes an account. Resume means now: the back-off of its token and its isolation end,
-- too. What we cannot end stays: the pause after a 429, and a token request whose outcome may still
-- be stored. Other ways to revive an account: docs/decisions/0021.
WITH account_before AS MATERIALIZED (
    SELECT open_id, state, state_since, lease_expires_at > now() AS leased, now() AS now
    FROM refresher.accounts
    WHERE open_id = :open_id
    FOR NO KEY UPDATE
),
told AS MATERIALIZED (
    SELECT CASE WHEN :state = 'active' THEN refresher.tell_daemons() END
),
stored_account AS (
    UPDATE refresher.accounts AS a
    SET state = :state,
        state_reason = :reason,
        state_since = CASE WHEN a.state = :state THEN a.state_since ELSE b.now END,
        token_due_at = CASE WHEN :state = 'active' AND a.token_failures > 0
                            THEN least(a.token_due_at, b.now) ELSE a.token_due_at END,
        -- Slots of an account in work stay as they are.
        isolated_since = CASE WHEN :state <> 'active' THEN a.isolated_since END,
        isolated_reason = CASE WHEN :state <> 'active' THEN a.isolated_reason END,
        failures = CASE WHEN :state = 'active' AND a.isolated_since IS NOT NULL THEN 0
                        ELSE a.failures END,
        next_slot_at = CASE WHEN :state = 'active' AND a.isolated_since IS NOT NULL
                                 AND coalesce(a.lease_expires_at, b.now) <= b.now
                            THEN least(a.next_slot_at, b.now) ELSE a.next_slot_at END,
        wake_at = CASE WHEN b.leased THEN a.wake_at ELSE least(a.wake_at, b.now) END
    FROM account_before AS b
    WHERE a.open_id = b.open_id
      AND (SELECT count(*) FROM told) > 0
    RETURNING b.state AS was, b.state_since AS since, b.now, a.state, a.lease_expires_at,
              a.next_slot_at, a.token_request_until, a.token_due_at, a.token_standing,
              a.access_token, a.access_token_expires_at, a.refresh_token
)
SELECT was, state AS is_, since, now,
       coalesce(lease_expires_at > now, false) AS leased,
       greatest(next_slot_at, token_request_until, now) AS free_at,
       refresh_token IS NOT NULL AS refreshable,
       token_due_at <= now AS token_due,
       {{ token_is_dead }} AS token_dead
FROM stored_account AS a
