-- Takes what was told; no row if another replica is at work on this attachment, or has taken it.
-- One at a time, and what was told of a change is seen only after it: so whoever applies it last has
-- read the application's table last.
WITH turn AS MATERIALIZED (
    SELECT name FROM refresher.attachments
    WHERE name = :attachment AND NOT detaching
    FOR UPDATE SKIP LOCKED
)
DELETE FROM refresher.changed_rows AS c
USING turn AS t
WHERE c.attachment = t.name AND c.id = ANY (:ids::bigint[])
RETURNING c.id, c.told_at, c.accounts, c.open_ids, c.video_ids
