CREATE TEMPORARY TABLE staged_accounts (
    line bigint, open_id text, access_token text, access_token_expires_at timestamptz,
    refresh_token text, refresh_token_expires_at timestamptz, scope text
) ON COMMIT DROP
