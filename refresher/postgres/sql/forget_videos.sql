-- Deletes the videos that an attachment has added to the next accounts. `last` is NULL at the end.
WITH next AS MATERIALIZED (
    SELECT open_id FROM refresher.accounts WHERE open_id > :after ORDER BY open_id LIMIT :accounts
), forgotten AS (
    DELETE FROM refresher.videos
    WHERE open_id = ANY (ARRAY(SELECT open_id FROM next)) AND attached_by = :attachment
    RETURNING open_id, video_id
), others_told AS (
    -- Another attached table may have the same video: a row for each thousand.
    INSERT INTO refresher.changed_rows (attachment, open_ids, video_ids)
    SELECT o.name, array_agg(f.open_id), array_agg(f.video_id)
    FROM (SELECT *, row_number() OVER () / 1000 AS part FROM forgotten) AS f
    CROSS JOIN refresher.attachments AS o
    WHERE o.attachment <> :attachment AND o.kind = 'videos' AND NOT o.detaching
    GROUP BY o.name, f.part
)
SELECT (SELECT count(*) FROM forgotten) AS videos, (SELECT max(open_id) FROM next) AS last
