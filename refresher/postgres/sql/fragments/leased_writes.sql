-- A row: videos of one chunk that are written alike, of an account whose lease is still the
-- claim's. We check the epoch under a key-share lock: a new claim of the account waits for it or
-- skips it. LATERAL looks the account up by its key, whatever numbers the planner expects. The
-- epoch is compared outside, so that the planner expects few writes and looks up their rows one by
-- one, too.
leased_writes AS MATERIALIZED (
    SELECT r.*, now() AS written_at
    FROM unnest(:open_ids::text[], :lease_epochs::bigint[], :numbers::integer[],
                :video_ids::text[], :urls::text[], :ctids::text[],
                :due_at::timestamptz[], :cover_expires_at::timestamptz[], :misses::smallint[],
                :missing::boolean[], :gone::boolean[], :refusals::text[])
         AS r (open_id, lease_epoch, number, video_ids, urls, ctids, due_at, cover_expires_at,
               misses, missing, gone, refusal)
    CROSS JOIN LATERAL (
        SELECT lease_epoch FROM refresher.accounts AS a
        WHERE a.open_id = r.open_id
        FOR KEY SHARE SKIP LOCKED
    ) AS a
    WHERE a.lease_epoch = r.lease_epoch
)
