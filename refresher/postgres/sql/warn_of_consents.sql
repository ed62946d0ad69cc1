WITH ending AS MATERIALIZED (
    {{ consents_ending }}
    LIMIT 500
    FOR NO KEY UPDATE SKIP LOCKED
),
{{ consents_noted }}
