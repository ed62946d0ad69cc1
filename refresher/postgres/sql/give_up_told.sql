-- Of an attachment that does not fit its table, what was told an hour ago is left to the walk: else the
-- queues would grow for as long as nobody mends it. Some at a time.
WITH rows AS (
    DELETE FROM refresher.changed_rows
    WHERE attachment = :attachment AND id IN (
        SELECT id FROM refresher.changed_rows
        WHERE attachment = :attachment AND told_at < now() - interval '1 hour'
        ORDER BY id LIMIT :most
        FOR UPDATE SKIP LOCKED
    )
)
DELETE FROM refresher.changed_covers
WHERE attachment = :attachment AND id IN (
    SELECT id FROM refresher.changed_covers
    WHERE attachment = :attachment AND told_at < now() - interval '1 hour'
    ORDER BY id LIMIT :most
    FOR UPDATE SKIP LOCKED
)
