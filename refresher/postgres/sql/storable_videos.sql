-- How many videos store_videos would store. Takes no lock.
SELECT count(*)
FROM staged_videos AS s
WHERE NOT EXISTS (
    SELECT FROM refresher.videos AS v WHERE v.open_id = s.open_id AND v.video_id = s.video_id
)
