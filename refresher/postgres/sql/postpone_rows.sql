-- What could not be applied is tried again later; after an hour it is left to the walk.
WITH given_up AS (
    DELETE FROM refresher.changed_rows
    WHERE attachment = :attachment AND id = :id AND told_at < now() - interval '1 hour'
)
UPDATE refresher.changed_rows SET not_before = now() + interval '1 minute'
WHERE attachment = :attachment AND id = :id AND told_at >= now() - interval '1 hour'
