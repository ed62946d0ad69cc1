-- Each threshold once for all replicas, and anew after a new authorization.
    SELECT open_id
    FROM refresher.accounts
    WHERE state IN ('active', 'paused')
      AND refresh_token_expires_at <= now() + interval '14 days'
      AND (consent_warned_days IS NULL
           OR (consent_warned_days > 3 AND refresh_token_expires_at <= now() + interval '3 days'))
