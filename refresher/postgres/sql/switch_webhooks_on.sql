-- Changes go to the outbox from now on. That ends by itself, a while after no daemon says this.
UPDATE refresher.app
SET webhooks_until = now() + interval '{{ webhooks_on_for_hours }} hours'
WHERE webhooks_until IS NULL
   OR webhooks_until < now() + interval '{{ webhooks_on_for_hours }} hours' - interval '1 hour'
