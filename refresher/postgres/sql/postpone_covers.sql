-- What could not be carried is tried again later; after an hour it is left to the walk.
WITH given_up AS (
    DELETE FROM refresher.changed_covers
    WHERE attachment = :attachment AND id = :id AND told_at < now() - interval '1 hour'
)
UPDATE refresher.changed_covers SET not_before = now() + interval '1 minute'
WHERE attachment = :attachment AND id = :id AND told_at >= now() - interval '1 hour'
