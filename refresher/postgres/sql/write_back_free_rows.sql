-- Rows that an application holds locked are left due rather than waited for. What a trigger of an
-- application waits for is waited for as long as it is told, and under a name of this statement's
-- own, by which another session finds out who holds it, whatever pooler lies between.
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', :lock_timeout, true),
           set_config('application_name', :session_name, true)
),
{{ held_chunks }},
free AS MATERIALIZED (
    SELECT w.*
    FROM ({{ writes_of chunks="held" }}) AS w JOIN refresher.videos AS v USING (open_id, video_id)
    WHERE {{ is_newer }}
    FOR NO KEY UPDATE OF v SKIP LOCKED
),
written AS (
    UPDATE refresher.videos AS v
    {{ set_written }}
    FROM free AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
      AND (SELECT count(*) FROM impatient) > 0
    RETURNING w.number
)
SELECT number, count(*) AS videos FROM written GROUP BY number
