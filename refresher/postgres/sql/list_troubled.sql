-- A page of the accounts in trouble, in the order of open_id. NULL asks for every state or reason.
SELECT open_id, {{ kind_of_account }} AS state,
       CASE WHEN state = 'active' THEN isolated_reason ELSE state_reason END AS reason,
       {{ kind_since }} AS since, videos, valid
FROM refresher.accounts
WHERE {{ is_troubled }}
  AND open_id > :after
  AND (:state::text IS NULL OR {{ kind_of_account }} = :state)
  AND (:reason::text IS NULL OR {{ kind_reason }} = :reason)
ORDER BY open_id
LIMIT :page
