-- What `accounts list` shows.
SELECT open_id, state, state_reason, state_since, isolated_reason, isolated_since, videos, valid,
       access_token_expires_at,
       CASE WHEN state = 'active' AND isfinite(wake_at) THEN wake_at END AS wake_at
FROM refresher.accounts
ORDER BY open_id
