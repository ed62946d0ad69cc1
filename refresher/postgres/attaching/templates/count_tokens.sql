WITH tokens AS (
    SELECT r.{{ open_id }}::text AS open_id, count(*) AS times,
           bool_and(r.{{ access_token }}::text LIKE 'act.%') AS likely
    FROM {% if where %}(SELECT * FROM {{ table }} WHERE {{ where }}){% else %}{{ table }}{% endif %} AS r
    WHERE r.{{ access_token }}::text <> ''
    GROUP BY 1
)
SELECT 0::bigint AS ambiguous, NULL::text AS ambiguous_one,
       coalesce(sum(times) FILTER (WHERE open_id IS NOT NULL), 0)::bigint AS rows,
       count(*) FILTER (WHERE times > 1 AND open_id IS NOT NULL) AS repeated,
       min(open_id) FILTER (WHERE times > 1) AS repeated_one,
       coalesce(sum(times) FILTER (WHERE open_id IS NULL), 0)::bigint AS without_open_id,
       NULL::text AS without_open_id_one,
       count(*) FILTER (WHERE NOT likely AND open_id IS NOT NULL) AS unusable,
       min(open_id) FILTER (WHERE NOT likely) AS unusable_one,
       0::bigint AS waiting_rows, 0::bigint AS waiting_accounts
FROM tokens
