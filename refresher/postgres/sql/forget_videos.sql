-- Deletes the videos that an attachment has added to the next accounts. `last` is NULL at the end.
WITH next AS MATERIALIZED (
    SELECT open_id FROM refresher.accounts WHERE open_id > :after ORDER BY open_id LIMIT :accounts
), forgotten AS (
    DELETE FROM refresher.videos
    WHERE open_id = ANY (ARRAY(SELECT open_id FROM next)) AND attached_by = :attachment
    RETURNING open_id
)
SELECT (SELECT count(*) FROM forgotten) AS videos, (SELECT max(open_id) FROM next) AS last
