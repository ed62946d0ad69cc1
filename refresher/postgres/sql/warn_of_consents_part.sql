-- As warn_of_consents, for a few accounts that are named.
WITH ending_consents AS MATERIALIZED (
    {{ consents_ending }}
    AND open_id = ANY (:open_ids::text[])
    FOR NO KEY UPDATE SKIP LOCKED
),
{{ consents_noted }}
