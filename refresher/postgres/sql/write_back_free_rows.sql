-- Writes results where write_back has met locks. Rows that an application has locked are skipped
-- and stay due. If an application's trigger waits for a lock, so do we, as long as we are told. The
-- session has a name of its own, by which another session finds out who holds the lock, even behind
-- a pooler.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', :lock_timeout, true),
           set_config('application_name', :session_name, true)
),
{{ leased_writes }},
unlocked_videos AS MATERIALIZED (
    -- A row: a video that we have locked.
    SELECT w.*
    FROM ({{ videos_of writes="leased_writes" }}) AS w
    JOIN refresher.videos AS v USING (open_id, video_id)
    WHERE {{ is_newer }}
    FOR NO KEY UPDATE OF v SKIP LOCKED
),
written AS (
    UPDATE refresher.videos AS v
    {{ set_written }}
    FROM unlocked_videos AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
      AND (SELECT count(*) FROM patience) > 0
    RETURNING w.number
)
SELECT number, count(*) AS videos FROM written GROUP BY number
