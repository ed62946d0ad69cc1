-- Stores what some probes showed.
INSERT INTO refresher.probes (host, open_id, video_id, left_seconds, life_seconds, outcome)
SELECT *
FROM unnest(:hosts::text[], :open_ids::text[], :video_ids::text[], :left_seconds::float8[],
            :life_seconds::float8[], :outcomes::text[])
