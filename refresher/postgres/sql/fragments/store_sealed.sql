-- Stores sealed tokens. We raise the generation ourselves, so that the trigger does not take them
-- for a new authorization. An account that has changed since it was read stays as it is.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', {{ lock_timeout }}, true)
),
unchanged_accounts AS MATERIALIZED (
    SELECT a.open_id, s.access_token, s.refresh_token
    FROM unnest(:open_ids::text[], :generations::bigint[],
                :access_tokens::text[], :refresh_tokens::text[])
         AS s (open_id, generation, access_token, refresh_token)
    JOIN refresher.accounts AS a
      ON a.open_id = s.open_id AND a.tokens_generation = s.generation
    ORDER BY a.open_id
    FOR NO KEY UPDATE OF a {{ waiting }}
),
stored AS (
    UPDATE refresher.accounts AS a
    SET access_token = u.access_token,
        refresh_token = u.refresh_token,
        tokens_generation = a.tokens_generation + 1
    FROM unchanged_accounts AS u
    WHERE a.open_id = u.open_id
      AND (SELECT count(*) FROM patience) > 0
    RETURNING a.open_id
)
SELECT open_id FROM stored
