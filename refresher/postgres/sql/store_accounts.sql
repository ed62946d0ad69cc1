-- New tokens for a known account re-authorize it: a trigger makes a parked one active again.
INSERT INTO refresher.accounts AS a (open_id, access_token, access_token_expires_at,
                                     refresh_token, refresh_token_expires_at, scope)
SELECT open_id, access_token, access_token_expires_at,
       refresh_token, refresh_token_expires_at, scope
FROM staged_accounts
ORDER BY open_id
ON CONFLICT (open_id) DO UPDATE
SET access_token = EXCLUDED.access_token,
    access_token_expires_at = EXCLUDED.access_token_expires_at,
    -- A file that does not bring these must not take them away.
    refresh_token = coalesce(EXCLUDED.refresh_token, a.refresh_token),
    refresh_token_expires_at = CASE WHEN EXCLUDED.refresh_token IS NULL
        THEN a.refresh_token_expires_at ELSE EXCLUDED.refresh_token_expires_at END,
    scope = coalesce(EXCLUDED.scope, a.scope)
-- A file of before a refresh holds tokens that are used up: the stored ones are newer.
WHERE a.access_token_expires_at IS NULL
   OR EXCLUDED.access_token_expires_at IS NULL
   OR EXCLUDED.access_token_expires_at >= a.access_token_expires_at
