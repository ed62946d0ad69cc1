-- Stores a renewed pair. Not under the lease: TikTok has taken the old pair away, so the new one is
-- the account's, whoever works it now. But only while the row holds the pair that was read
-- (:stored_access_token, :stored_refresh_token).
--
-- If no access token came, the stored one stays, with all that belongs to it. A refresh token that
-- stays the same (NULL here) was not used up. If it was (:used_token), a trigger keeps its
-- fingerprint, so that it is not taken for a new authorization later.
WITH moment AS MATERIALIZED (
    -- One row: when the new tokens end, which is told from now.
    SELECT now() AS now,
           now() + :access_token_lives_seconds::float8 * interval '1 second' AS access_token_ends_at,
           now() + :due_in_seconds::float8 * interval '1 second' AS due_at,
           now() + :refresh_token_lives_seconds::float8 * interval '1 second'
               AS refresh_token_ends_at,
           now() + :refresh_token_lives_seconds::float8 * interval '1 second' - interval '1 day'
               AS day_before_that
),
replaced AS (
    UPDATE refresher.accounts AS a
    SET access_token = coalesce(:access_token, a.access_token),
        access_token_expires_at = CASE WHEN :access_token IS NULL THEN a.access_token_expires_at
            ELSE m.access_token_ends_at END,
        token_due_at = CASE WHEN :access_token IS NULL THEN a.token_due_at
            ELSE m.due_at END,
        token_standing = CASE WHEN :access_token IS NULL OR a.token_standing = 'trusted'
            THEN a.token_standing
            ELSE 'renewed' END,
        refresh_token = coalesce(:refresh_token, a.refresh_token),
        refresh_token_expires_at = coalesce(m.refresh_token_ends_at, a.refresh_token_expires_at),
        used_token = CASE WHEN :refresh_token IS NULL THEN a.used_token ELSE :used_token END,
        scope = coalesce(:scope, a.scope),
        tokens_generation = a.tokens_generation + 1,
        token_failures = 0,
        token_request_until = NULL,
        -- A consent that was prolonged gets new warnings.
        consent_warned_days = CASE
            WHEN m.day_before_that > a.refresh_token_expires_at THEN NULL
            ELSE a.consent_warned_days END,
        -- Who parked the account meanwhile knew only the old pair, so the new one revives it: see
        -- docs/decisions/0021.
        state = CASE WHEN a.state = 'needs_reauthorization' THEN 'active' ELSE a.state END,
        state_reason = CASE WHEN a.state = 'needs_reauthorization' THEN NULL ELSE a.state_reason END,
        state_since = CASE WHEN a.state = 'needs_reauthorization' THEN m.now ELSE a.state_since END,
        wake_at = CASE WHEN a.state = 'needs_reauthorization' THEN least(a.wake_at, m.now)
            ELSE a.wake_at END
    FROM moment AS m
    WHERE a.open_id = :open_id
      AND a.access_token IS NOT DISTINCT FROM :stored_access_token
      AND a.refresh_token IS NOT DISTINCT FROM :stored_refresh_token
    RETURNING a.open_id
)
SELECT open_id FROM replaced
