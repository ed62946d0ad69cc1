-- Deletes some of what an attachment has told; how many rows that was.
WITH rows AS (
    DELETE FROM refresher.changed_rows
    WHERE attachment = :name AND id IN (
        SELECT id FROM refresher.changed_rows WHERE attachment = :name ORDER BY id LIMIT :most
    )
    RETURNING id
), covers AS (
    DELETE FROM refresher.changed_covers
    WHERE attachment = :name AND id IN (
        SELECT id FROM refresher.changed_covers WHERE attachment = :name ORDER BY id LIMIT :most
    )
    RETURNING id
)
SELECT (SELECT count(*) FROM rows) + (SELECT count(*) FROM covers)
