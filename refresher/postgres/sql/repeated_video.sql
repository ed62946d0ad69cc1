-- Lines of the file with a video that an earlier line has, too.
SELECT max(line) AS line, count(*) OVER () AS wrong, open_id || ',' || video_id AS value,
       'open_id,video_id: expected each once (first in line ' || min(line) || ')' AS expected
FROM staged_videos
GROUP BY open_id, video_id
HAVING count(*) > 1
ORDER BY 1
LIMIT :most
