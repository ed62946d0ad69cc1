WITH ending AS MATERIALIZED (
    {{ consents_ending }}
    LIMIT {{ consents_at_once }}
    FOR NO KEY UPDATE SKIP LOCKED
),
{{ consents_noted }}
