-- The lease's epoch is checked under a lock that a new claim of the account would wait for or skip.
-- LATERAL, so that the account is looked up by its key whatever the planner thinks of the numbers;
-- with the epoch compared outside it expects few writes, and looks their rows up one by one as
-- well.
held AS MATERIALIZED (
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
