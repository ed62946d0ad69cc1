-- Writes results to the rows where the claim has read them (ctid). To look rows up by their key
-- would cost a quarter of the server's CPU time. A row that was changed or moved meanwhile is no
-- longer at its place: then we look for it by its key.
--
-- A row is locked when it is written, not before. If an application has locked one, the statement
-- fails before the server looks for a deadlock, and write_back_free_rows is sent instead. To lock
-- rows first would cost a third of the CPU time of a write-back and a quarter of its WAL; to sort
-- them first, a fifth of the time.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', '100ms', true)
),
{{ leased_writes }},
written_in_place AS (
    -- A row: a video that was still where the claim had read it.
    UPDATE refresher.videos AS v
    {{ set_written }}
    FROM ({{ videos_of writes="leased_writes" }}) AS w
    WHERE v.ctid = w.ctid AND v.open_id = w.open_id AND v.video_id = w.video_id
      AND {{ is_newer }}
      AND (SELECT count(*) FROM patience) > 0
    RETURNING w.number, w.video_id
),
short_writes AS MATERIALIZED (
    -- A row: videos that are written alike, of which some were not where the claim had read them.
    SELECT *
    FROM leased_writes
    -- NOT IN is hashed, and neither side is ever NULL. For a join the planner would choose a loop,
    -- as it expects one row on each side.
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
      -- A statement must not write a row twice.
      AND NOT EXISTS (
          SELECT 1 FROM written_in_place AS i WHERE i.number = w.number AND i.video_id = w.video_id
      )
    RETURNING w.number
)
SELECT number, count(*) AS videos
FROM (SELECT number FROM written_in_place UNION ALL SELECT number FROM written_elsewhere) AS w
GROUP BY number
