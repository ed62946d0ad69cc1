-- Writes results where the claim has read the rows: looking them up by their key costs a quarter
-- of the server's CPU time. A row that was changed or moved meanwhile is not there; the rest of its
-- writes is looked up by the key.
--
-- Rows are locked by being written. So a row that an application has locked fails the statement,
-- sooner than the server looks for a deadlock: then write_back_free_rows is sent. Locking rows
-- first, always, costs a third of the server's CPU time for a write-back and a quarter of its WAL;
-- sorting them first costs a fifth of the time.
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '100ms', true)
),
{{ leased_writes }},
written_in_place AS (
    -- A row: a video that lay where the claim had read it.
    UPDATE refresher.videos AS v
    {{ set_written }}
    FROM ({{ videos_of writes="leased_writes" }}) AS w
    WHERE v.ctid = w.ctid AND v.open_id = w.open_id AND v.video_id = w.video_id
      AND {{ is_newer }}
      AND (SELECT count(*) FROM impatient) > 0
    RETURNING w.number, w.video_id
),
short_writes AS MATERIALIZED (
    -- A row: what is written alike, and was not found completely.
    SELECT *
    FROM leased_writes
    -- NOT IN is hashed, and neither side is ever NULL. A join would be a loop: the planner expects
    -- one row of each.
    WHERE (number, cardinality(string_to_array(video_ids, :separator))::bigint) NOT IN (
        SELECT number, count(*) FROM written_in_place GROUP BY number
    )
),
written_elsewhere AS (
    -- A row: a video that was found by its key.
    UPDATE refresher.videos AS v
    {{ set_written }}
    FROM ({{ videos_of writes="short_writes" }}) AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
      AND {{ is_newer }}
      -- A statement may not write a row twice.
      AND NOT EXISTS (
          SELECT FROM written_in_place AS i WHERE i.number = w.number AND i.video_id = w.video_id
      )
    RETURNING w.number
)
SELECT number, count(*) AS videos
FROM (SELECT number FROM written_in_place UNION ALL SELECT number FROM written_elsewhere) AS w
GROUP BY number
