-- Takes webhooks that are due, at most the first of each account, for :lease. Nobody else takes them
-- meanwhile; a sender that dies leaves them to others.
WITH due_webhooks AS MATERIALIZED (
    SELECT webhook_id, now() + :lease::interval AS taken_until
    FROM refresher.outbox AS o
    WHERE next_attempt_at <= now()
      AND changed_at > now() - interval '{{ webhooks_tried_for_hours }} hours'
      AND NOT EXISTS (
          SELECT 1 FROM refresher.outbox AS earlier
          WHERE earlier.open_id = o.open_id AND earlier.place < o.place
            -- What is given up stands in nobody's way.
            AND earlier.changed_at > now() - interval '{{ webhooks_tried_for_hours }} hours'
      )
    ORDER BY next_attempt_at
    LIMIT :at_once
    FOR UPDATE SKIP LOCKED
),
taken_webhooks AS (
    UPDATE refresher.outbox AS o
    SET attempts = o.attempts + 1, next_attempt_at = d.taken_until
    FROM due_webhooks AS d
    WHERE o.webhook_id = d.webhook_id
    RETURNING o.webhook_id, o.open_id, o.type, o.data, o.changed_at, o.attempts
)
SELECT webhook_id::text, open_id, type, data, changed_at, attempts, now() AS sent_at
FROM taken_webhooks
