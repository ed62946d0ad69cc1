-- Whether anything due is left that is worth waiting for. A pause after 429s is; a pause for a
-- day's quota or of an isolated account is not.
SELECT EXISTS (
    SELECT 1 FROM refresher.accounts AS a
    WHERE a.state = 'active'
      AND a.failures < :failures
      AND (a.lease_expires_at > now() OR a.next_slot_at <= now() + interval '2 minutes')
      AND a.open_id <> ALL (:given_up)
      AND NOT (a.token_failures > 0 AND {{ token_is_dead }}
               AND (a.token_failures >= :failures OR a.token_due_at > now() + interval '1 minute'))
      AND EXISTS (
          SELECT 1 FROM refresher.videos AS v WHERE v.open_id = a.open_id AND v.due_at <= :before
      )
)
