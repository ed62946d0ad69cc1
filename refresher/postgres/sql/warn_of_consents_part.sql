WITH ending AS MATERIALIZED (
    {{ consents_ending }}
    AND open_id = ANY (:open_ids::text[])
    FOR NO KEY UPDATE SKIP LOCKED
),
{{ consents_noted }}
