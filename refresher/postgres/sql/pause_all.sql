-- Pauses everything, or ends that. A pause goes on from when it began.
WITH app_before AS MATERIALIZED (
    SELECT paused_since,
           CASE WHEN :paused THEN coalesce(paused_since, now()) END AS from_now_on
    FROM refresher.app
    FOR NO KEY UPDATE
),
noted AS (
    UPDATE refresher.app
    SET paused_since = b.from_now_on
    FROM app_before AS b
    RETURNING b.paused_since
)
SELECT paused_since, CASE WHEN NOT :paused THEN refresher.tell_daemons() END FROM noted
