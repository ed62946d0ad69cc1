-- Asks for some videos of one account again, as if they had never been missing. `refusal` stays: so
-- a video that spoils requests is asked for alone. We wake the account ourselves, as the trigger
-- takes a row whose `misses` change for a miss of the daemon's own.
WITH retried_videos AS (
    UPDATE refresher.videos
    SET due_at = least(due_at, now()), misses = 0, gone_at = NULL
    WHERE open_id = :open_id AND video_id = ANY (:video_ids::text[])
    RETURNING video_id
)
SELECT count(*) AS videos, refresher.wake_account(:open_id, now())
FROM retried_videos
HAVING count(*) > 0
