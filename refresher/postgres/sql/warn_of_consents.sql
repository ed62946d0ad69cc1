-- Notes which warning is due, for some accounts whose consent ends soon.
WITH ending_consents AS MATERIALIZED (
    {{ consents_ending }}
    LIMIT {{ consents_at_once }}
    FOR NO KEY UPDATE SKIP LOCKED
),
{{ consents_noted }}
