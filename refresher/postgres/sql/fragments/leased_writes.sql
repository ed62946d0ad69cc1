-- A row: what was written alike in one chunk, of an account whose lease is still the claim's. The
-- epoch is checked under a lock that a new claim of the account waits for or skips. LATERAL looks
-- the account up by its key, whatever numbers the planner expects; the epoch is compared outside,
-- so that it expects few writes and looks their rows up one by one, too.
leased_writes AS MATERIALIZED (
    SELECT r.*
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
