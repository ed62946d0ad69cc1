-- The generation is raised by ourselves, so the trigger does not take it for a new authorization.
-- What has changed since it was read is left alone.
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', {{ lock_timeout }}, true)
),
held AS MATERIALIZED (
    SELECT a.open_id, s.access_token, s.refresh_token
    FROM unnest(:open_ids::text[], :generations::bigint[],
                :access_tokens::text[], :refresh_tokens::text[])
         AS s (open_id, generation, access_token, refresh_token)
    JOIN refresher.accounts AS a
      ON a.open_id = s.open_id AND a.tokens_generation = s.generation
    ORDER BY a.open_id
    FOR NO KEY UPDATE OF a {{ waiting }}
)
UPDATE refresher.accounts AS a
SET access_token = h.access_token,
    refresh_token = h.refresh_token,
    tokens_generation = a.tokens_generation + 1
FROM held AS h
WHERE a.open_id = h.open_id
  AND (SELECT count(*) FROM impatient) > 0
RETURNING a.open_id
