-- Takes an account away from the daemons, so that nobody works it or renews its tokens any more: an
-- active one is paused, and its lease taken over under a new epoch. A token request that is under way
-- ends first, as only its lease can note what came of it: `renewing` says for how long at most.
WITH account_before AS MATERIALIZED (
    SELECT open_id, state, state_since, now() AS now, now() + :lease::interval AS lease_ends_at,
           CASE WHEN token_request_until > now() THEN token_request_until - now() END AS renewing
    FROM refresher.accounts
    WHERE open_id = :open_id
    FOR NO KEY UPDATE
),
taken_account AS (
    UPDATE refresher.accounts AS a
    SET state = CASE WHEN a.state = 'active' THEN 'paused' ELSE a.state END,
        state_reason = CASE WHEN a.state = 'active' THEN :reason ELSE a.state_reason END,
        state_since = CASE WHEN a.state = 'active' THEN b.now ELSE a.state_since END,
        lease_owner = CASE WHEN b.renewing IS NULL THEN :owner ELSE a.lease_owner END,
        lease_epoch = a.lease_epoch + CASE WHEN b.renewing IS NULL THEN 1 ELSE 0 END,
        lease_expires_at = CASE WHEN b.renewing IS NULL THEN b.lease_ends_at
                                ELSE a.lease_expires_at END
    FROM account_before AS b
    WHERE a.open_id = b.open_id
    RETURNING b.state AS was, b.state_since AS since, b.renewing, b.now,
              a.access_token, a.lease_epoch, a.lease_expires_at, a.tokens_generation,
              a.token_standing, a.access_token_expires_at, a.refresh_token,
              a.refresh_token_expires_at
)
SELECT was, since, renewing, now, access_token, lease_epoch, lease_expires_at, tokens_generation,
       {{ token_is_dead }} AS token_dead, {{ is_renewable }} AS renewable,
       coalesce(refresh_token_expires_at <= now, false) AS consent_ended
FROM taken_account AS a
