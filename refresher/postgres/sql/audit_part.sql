WITH batch AS MATERIALIZED (
    -- No batch is of more.
    SELECT open_id FROM unnest(:open_ids::text[]) AS open_id LIMIT :videos_read
),
{{ audit_mend }}
