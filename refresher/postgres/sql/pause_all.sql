-- Pauses everything, or ends that. A pause goes on from when it began.
WITH app_before AS MATERIALIZED (
    SELECT paused_since FROM refresher.app FOR NO KEY UPDATE
)
UPDATE refresher.app
SET paused_since = CASE WHEN :paused THEN coalesce(app.paused_since, now()) END
FROM app_before
RETURNING app_before.paused_since, CASE WHEN NOT :paused THEN refresher.tell_daemons() END
