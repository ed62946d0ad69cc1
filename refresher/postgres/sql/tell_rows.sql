-- As an attached table tells.
INSERT INTO refresher.changed_rows (attachment, accounts, open_ids, video_ids, told_at)
VALUES (:attachment, :accounts, :open_ids, :video_ids, :told_at)
