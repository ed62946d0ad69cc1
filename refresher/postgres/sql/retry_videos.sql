-- Asks for some videos of one account again, as if they had never been missing. `refusal` stays: so
-- a video that spoils requests is asked for alone. We wake the account ourselves, as the trigger
-- takes a row whose `misses` change for a miss of the daemon's own.
WITH moment AS MATERIALIZED (
    SELECT now() AS now
),
retried_videos AS (
    UPDATE refresher.videos AS v
    SET due_at = least(v.due_at, m.now), misses = 0, gone_at = NULL
    FROM moment AS m
    WHERE v.open_id = :open_id AND v.video_id = ANY (:video_ids::text[])
    RETURNING v.video_id
),
retried AS MATERIALIZED (
    SELECT count(*) AS videos FROM retried_videos HAVING count(*) > 0
),
account AS MATERIALIZED (
    -- One row: the account, and when it is to wake, as the trigger of an insert says: below the end
    -- of a lease, and not before a pause has ended.
    SELECT a.*, r.videos AS retried,
           least(a.wake_at,
                 greatest(now(), CASE WHEN a.next_slot_at > now() + interval '1 minute'
                                      THEN a.next_slot_at END),
                 CASE WHEN a.lease_expires_at > now()
                      THEN a.lease_expires_at - interval '1 millisecond' END) AS woken_at,
           a.state = 'active' AND (a.lease_expires_at IS NULL OR a.lease_expires_at <= now()) AS free
    FROM refresher.accounts AS a, retried AS r
    WHERE a.open_id = :open_id
    FOR NO KEY UPDATE OF a
),
woken_account AS (
    UPDATE refresher.accounts AS a
    SET wake_at = w.woken_at
    FROM account AS w
    WHERE a.open_id = w.open_id AND w.woken_at < w.wake_at
)
SELECT a.retried AS videos,
       CASE WHEN a.free AND a.woken_at <= now() THEN refresher.tell_daemons() END,
       a.state <> 'active' AS inactive, {{ token_is_dead }} AS token_dead,
       {{ is_renewable }} AS renewable
FROM account AS a
