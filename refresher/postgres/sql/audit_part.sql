-- Audits a few accounts that are named.
WITH batch AS MATERIALIZED (
    -- A row: an account of this part. LIMIT tells the planner how many there are at most.
    SELECT open_id FROM unnest(:open_ids::text[]) AS open_id LIMIT :videos_read
),
{{ audit_mend }}
