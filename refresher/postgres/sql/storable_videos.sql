-- How many videos store_videos would store. Takes no lock.
SELECT (SELECT count(*) FROM staged_videos)
       -- Counted by a join, for which Citus brings the file to the videos: of NOT EXISTS it knows
       -- nothing there, and for an outer join it would bring the videos to the file.
       - (SELECT count(*) FROM staged_videos JOIN refresher.videos USING (open_id, video_id))
