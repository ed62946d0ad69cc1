-- Rows are written where the claim has read them: to look them up by their key costs a quarter of
-- the server's CPU time for a write-back. One that was changed or moved meanwhile is not there;
-- what may be there instead is told by its key, by which the rest of its writes is looked up.
--
-- Rows are locked by being written, so a row that an application holds fails the statement, sooner
-- than its own look for a deadlock: then the other one is for it. To lock rows first, always, costs
-- a third of the server's CPU time for a write-back and a quarter of its WAL; to sort them first a
-- fifth of the time.
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '100ms', true)
),
{{ held_chunks }},
in_place AS (
    UPDATE refresher.videos AS v
    {{ set_written }}
    FROM ({{ writes_of chunks="held" }}) AS w
    WHERE v.ctid = w.ctid AND v.open_id = w.open_id AND v.video_id = w.video_id
      AND {{ is_newer }}
      AND (SELECT count(*) FROM impatient) > 0
    RETURNING w.number, w.video_id
),
short AS MATERIALIZED (
    SELECT *
    FROM held
    -- Hashed, and neither side is ever NULL; a join would be looped over, as the planner expects
    -- one row of each.
    WHERE (number, cardinality(string_to_array(video_ids, :separator))::bigint) NOT IN (
        SELECT number, count(*) FROM in_place GROUP BY number
    )
),
moved AS (
    UPDATE refresher.videos AS v
    {{ set_written }}
    FROM ({{ writes_of chunks="short" }}) AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
      AND {{ is_newer }}
      -- A statement may not write a row twice.
      AND NOT EXISTS (
          SELECT FROM in_place AS i WHERE i.number = w.number AND i.video_id = w.video_id
      )
    RETURNING w.number
)
SELECT number, count(*) AS videos
FROM (SELECT number FROM in_place UNION ALL SELECT number FROM moved) AS written
GROUP BY number
