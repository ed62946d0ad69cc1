-- Covers that could not be carried, as the application holds their rows locked. They are looked at
-- again after as long as they have waited, within these bounds.
INSERT INTO refresher.changed_covers (attachment, open_ids, video_ids, told_at, not_before)
SELECT :attachment::text, :open_ids::text[], :video_ids::text[], :told_at::timestamptz,
       now() + least(greatest(now() - :told_at::timestamptz, interval '1 second'),
                     interval '1 minute')
