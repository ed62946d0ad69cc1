-- Asks for some videos of one account again, as if they had never been missing. `refusal` stays: so
-- a video that spoils requests is asked for alone. We wake the account ourselves, as the trigger
-- takes a row whose `misses` change for a miss of the daemon's own.
WITH retried_videos AS (
    UPDATE refresher.videos
    SET due_at = least(due_at, now()), misses = 0, gone_at = NULL
    WHERE open_id = :open_id AND video_id = ANY (:video_ids::text[])
    RETURNING video_id
)
SELECT r.videos, refresher.wake_account(:open_id, now()),
       a.state <> 'active' AS inactive, {{ token_is_dead }} AS token_dead,
       {{ is_renewable }} AS renewable
FROM (SELECT count(*) AS videos FROM retried_videos HAVING count(*) > 0) AS r,
     refresher.accounts AS a
WHERE a.open_id = :open_id
