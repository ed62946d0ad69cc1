-- As a write-back tells. Covers are always told by open_id.
INSERT INTO refresher.changed_covers (attachment, open_ids, video_ids, told_at)
SELECT :attachment, :open_ids::text[], :video_ids::text[], :told_at
WHERE :accounts::text[] IS NULL
