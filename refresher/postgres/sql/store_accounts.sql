-- New tokens for a known account re-authorize it: a trigger revives it if it is parked.
INSERT INTO refresher.accounts AS a (open_id, access_token, access_token_expires_at,
                                     refresh_token, refresh_token_expires_at, scope)
SELECT open_id, access_token, access_token_expires_at,
       refresh_token, refresh_token_expires_at, scope
FROM staged_accounts
ORDER BY open_id
ON CONFLICT (open_id) DO UPDATE
SET access_token = EXCLUDED.access_token,
    access_token_expires_at = EXCLUDED.access_token_expires_at,
    -- A file without these columns must not remove what is stored.
    refresh_token = coalesce(EXCLUDED.refresh_token, a.refresh_token),
    refresh_token_expires_at = CASE WHEN EXCLUDED.refresh_token IS NULL
        THEN a.refresh_token_expires_at ELSE EXCLUDED.refresh_token_expires_at END,
    scope = coalesce(EXCLUDED.scope, a.scope)
-- A file older than the last renewal holds tokens that are used up: the stored ones are newer.
WHERE a.access_token_expires_at IS NULL
   OR EXCLUDED.access_token_expires_at IS NULL
   OR EXCLUDED.access_token_expires_at >= a.access_token_expires_at
