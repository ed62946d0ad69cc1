-- Deletes an account, with the videos that it still has, and all that other tables hold of it. A row
-- of the queues may tell of other accounts, too: of it only the account is taken out.
WITH accounts AS (
    DELETE FROM refresher.accounts WHERE open_id = :open_id
), used_tokens AS (
    -- The account's trigger deletes them, too: these are left of an account that is gone.
    DELETE FROM refresher.used_tokens WHERE open_id = :open_id
), probes AS (
    DELETE FROM refresher.probes WHERE open_id = :open_id
), outbox AS (
    -- As used_tokens.
    DELETE FROM refresher.outbox WHERE open_id = :open_id
), attached_tokens AS (
    DELETE FROM refresher.attached_tokens WHERE open_id = :open_id AND NOT :keep_attached
), told_rows AS (
    DELETE FROM refresher.changed_rows
    WHERE :open_id = ANY (open_ids) AND :open_id = ALL (open_ids)
), told_rows_of_others AS (
    UPDATE refresher.changed_rows
    SET (open_ids, video_ids) = (
        SELECT array_agg(open_id ORDER BY place),
               CASE WHEN changed_rows.video_ids IS NOT NULL
                    THEN array_agg(video_id ORDER BY place) END
        FROM unnest(open_ids, video_ids) WITH ORDINALITY AS told (open_id, video_id, place)
        WHERE open_id <> :open_id
    )
    WHERE :open_id = ANY (open_ids) AND :open_id <> ANY (open_ids)
), told_covers AS (
    DELETE FROM refresher.changed_covers
    WHERE :open_id = ANY (open_ids) AND :open_id = ALL (open_ids)
)
UPDATE refresher.changed_covers
SET (open_ids, video_ids) = (
    SELECT array_agg(open_id ORDER BY place), array_agg(video_id ORDER BY place)
    FROM unnest(open_ids, video_ids) WITH ORDINALITY AS told (open_id, video_id, place)
    WHERE open_id <> :open_id
)
WHERE :open_id = ANY (open_ids) AND :open_id <> ANY (open_ids)
