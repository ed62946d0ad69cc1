-- Accounts whose consent ends soon or has ended. Each warning is given once for all replicas, and
-- once more after a new authorization.
    SELECT open_id, now() AS now, now() + interval '{{ consent_last_days }} days' AS last_days_end
    FROM refresher.accounts
    WHERE state IN ('active', 'paused')
      AND refresh_token_expires_at <= now() + interval '{{ consent_first_days }} days'
      AND (consent_warned_days IS NULL
           OR (consent_warned_days > {{ consent_last_days }}
               AND refresh_token_expires_at
                   <= now() + interval '{{ consent_last_days }} days')
           OR (consent_warned_days > 0 AND refresh_token_expires_at <= now()))
