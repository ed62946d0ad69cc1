-- Deletes some webhooks that were tried for long enough, or that nobody delivers any more.
WITH old_webhooks AS MATERIALIZED (
    SELECT webhook_id
    FROM refresher.outbox
    WHERE changed_at <= now() - interval '{{ webhooks_tried_for_hours }} hours'
    LIMIT {{ webhooks_given_up_at_once }}
    FOR UPDATE SKIP LOCKED
)
DELETE FROM refresher.outbox AS o
USING old_webhooks
WHERE o.webhook_id = old_webhooks.webhook_id
RETURNING o.webhook_id::text, o.open_id, o.type, o.attempts
