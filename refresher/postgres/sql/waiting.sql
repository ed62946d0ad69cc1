-- A page of the accounts that wait for better app credentials.
{{ waiting_for_credentials }}
  AND a.open_id > :after
ORDER BY a.open_id
LIMIT {{ freed_at_once }}
