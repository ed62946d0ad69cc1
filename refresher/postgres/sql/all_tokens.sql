-- A page of all accounts with tokens.
{{ tokens_of which="(access_token IS NOT NULL OR refresh_token IS NOT NULL)" }}
