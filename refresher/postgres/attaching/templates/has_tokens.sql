{% from "_macros.sql" import live with context -%}
SELECT EXISTS (
    SELECT 1 FROM {{ live(table, where) }} AS r
    WHERE r.{{ open_id }} = ($1::text)::{{ open_id_type }} AND r.{{ access_token }}::text <> ''
)
