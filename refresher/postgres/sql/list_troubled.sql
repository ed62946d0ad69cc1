-- A page of the accounts in trouble, in the order of open_id. NULL asks for every state or reason.
SELECT open_id, state, told AS reason, since, videos, valid
FROM (
    {{ in_trouble }}
) AS accounts
WHERE open_id > :after
  AND (:state::text IS NULL OR state = :state)
  AND (:reason::text IS NULL OR reason = :reason)
ORDER BY open_id
LIMIT :page
