-- Takes what was told; not what another replica is at.
DELETE FROM refresher.changed_covers
WHERE attachment = :attachment AND id IN (
    SELECT id FROM refresher.changed_covers
    WHERE attachment = :attachment AND id = ANY (:ids::bigint[])
    FOR UPDATE SKIP LOCKED
)
RETURNING id, told_at, open_ids, video_ids
