-- Revision 0004, refresher/postgres/tokens.py
UPDATE refresher.accounts AS a
SET access_token = coalesce(:access_token, a.access_token),
    access_token_expires_at = CASE WHEN :access_token IS NULL THEN a.access_token_expires_at
        ELSE now() + :access_token_lives_seconds::float8 * interval '1 second' END,
    token_due_at = CASE WHEN :access_token IS NULL THEN a.token_due_at
        ELSE now() + :due_in_seconds::float8 * interval '1 second' END,
    token_standing = CASE WHEN :access_token IS NULL OR a.token_standing = 'trusted' THEN a.token_standing
        ELSE 'renewed' END,
    refresh_token = coalesce(:refresh_token, a.refresh_token),
    refresh_token_expires_at =
        coalesce(now() + :refresh_token_lives_seconds::float8 * interval '1 second', a.refresh_token_expires_at),
    scope = coalesce(:scope, a.scope),
    tokens_generation = a.tokens_generation + 1,
    token_failures = 0,
    token_request_until = NULL,
    -- A consent that has been prolonged is warned of again.
    consent_warned_days = CASE
        WHEN now() + :refresh_token_lives_seconds::float8 * interval '1 second'
             > a.refresh_token_expires_at + interval '1 day' THEN NULL
        ELSE a.consent_warned_days END,
    state = CASE WHEN a.state = 'needs_reauthorization' THEN 'active' ELSE a.state END,
    state_reason = CASE WHEN a.state = 'needs_reauthorization' THEN NULL ELSE a.state_reason END,
    state_since = CASE WHEN a.state = 'needs_reauthorization' THEN now() ELSE a.state_since END,
    wake_at = CASE WHEN a.state = 'needs_reauthorization' THEN least(a.wake_at, now())
        ELSE a.wake_at END
WHERE a.open_id = :open_id
  AND a.access_token IS NOT DISTINCT FROM :stored_access_token
  AND a.refresh_token IS NOT DISTINCT FROM :stored_refresh_token
RETURNING a.open_id
