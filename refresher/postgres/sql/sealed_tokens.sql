-- A page of the accounts with a sealed token.
{{ tokens_of
    which="(access_token ~ {{ sealed_pattern }}
            OR refresh_token ~ {{ sealed_pattern }})" }}
