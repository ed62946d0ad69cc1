-- How many webhooks wait to be delivered, and for how long the oldest one has.
SELECT count(*) AS waiting,
       coalesce(extract(epoch FROM now() - min(changed_at)), 0)::float8 AS oldest_seconds
FROM refresher.outbox
