-- Hosts that TikTok's answers have named. A mistake, theirs or ours, must not fill the table.
INSERT INTO refresher.cover_hosts (host)
SELECT host
FROM unnest(:hosts::text[]) AS host
WHERE (SELECT count(*) FROM refresher.cover_hosts) < {{ most_cover_hosts }}
ORDER BY host
ON CONFLICT DO NOTHING
