-- Hosts that TikTok's answers have named. Whether there is room for them is asked before: from an INSERT
-- that reads its own table, Citus 14.0.1 makes a statement that is none.
INSERT INTO refresher.cover_hosts (host)
SELECT host
FROM unnest(:hosts::text[]) AS host
ORDER BY host
ON CONFLICT DO NOTHING
