-- A page of the accounts with a token in plain text.
{{ tokens_of
    which="(access_token !~ {{ sealed_pattern }}
            OR refresh_token !~ {{ sealed_pattern }})" }}
