-- Stores what some probes showed, and forgets those of yesterday. All but the first one came early:
-- the next turn is that much later.
WITH forgotten_probes AS (
    DELETE FROM refresher.probes WHERE probed_at < now() - interval '1 day'
),
put_off AS (
    UPDATE refresher.probing SET next_at = next_at + :early::interval
)
INSERT INTO refresher.probes (host, open_id, video_id, left_seconds, life_seconds, outcome)
SELECT *
FROM unnest(:hosts::text[], :open_ids::text[], :video_ids::text[], :left_seconds::float8[],
            :life_seconds::float8[], :outcomes::text[])
