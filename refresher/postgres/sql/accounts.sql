-- A page of `accounts list`, in the order of the key: no statement holds a snapshot for long.
SELECT open_id, state, state_reason, state_since, isolated_reason, isolated_since, videos, valid,
       access_token_expires_at, refresh_token_expires_at,
       last_failure_at, last_failure_code, last_failure_http_status, last_failure_log_id,
       CASE WHEN state = 'active' AND isfinite(wake_at) THEN wake_at END AS wake_at
FROM refresher.accounts AS a
WHERE open_id > :after
  AND CASE :wanted::text
      WHEN 'isolated' THEN state = 'active' AND isolated_since IS NOT NULL
      WHEN 'dead_token' THEN {{ has_dead_token }}
      ELSE :wanted IS NULL OR state = :wanted END
ORDER BY open_id
LIMIT :rows
