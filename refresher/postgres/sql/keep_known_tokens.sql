-- Gives tokens that are stored already their stored text again.
UPDATE staged_accounts AS s
SET access_token = k.access_token,
    refresh_token = k.refresh_token
FROM unnest(:open_ids::text[], :access_tokens::text[], :refresh_tokens::text[])
     AS k (open_id, access_token, refresh_token)
WHERE s.open_id = k.open_id
