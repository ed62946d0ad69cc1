-- The accounts that 429s have slowed down or paused, the longest first, and how many there are.
SELECT a.open_id, a.next_slot_at AS free_at, {{ rate_share_now }}::float8 AS rate_share,
       count(*) OVER () AS accounts
FROM refresher.accounts AS a
WHERE a.state = 'active' AND a.isolated_since IS NULL
  AND ({{ rate_share_now }} < 1 OR ({{ is_throttled horizon=":horizon::interval" }}
                                    AND a.lease_expires_at IS NULL))
ORDER BY a.next_slot_at DESC, a.open_id
LIMIT :rows
