-- As an attached table tells.
INSERT INTO refresher.changed_videos (attachment, accounts, open_ids, video_ids, told_at)
VALUES (:attachment, :accounts, :open_ids, :video_ids, :told_at)
