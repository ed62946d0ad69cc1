-- What was seen of a host within a day, the latest first.
SELECT open_id, video_id, left_seconds, life_seconds, outcome = 'served' AS served
FROM refresher.probes
WHERE host = :host AND outcome IN ('served', 'refused')
ORDER BY probed_at DESC
LIMIT :rows
