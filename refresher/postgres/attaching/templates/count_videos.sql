WITH {% if join -%}
accounts AS (
    SELECT {{ account_key }} AS key, min({{ account_open_id }}::text) AS open_id,
           count(DISTINCT {{ account_open_id }}) AS open_ids
    FROM {{ account_table }}
    WHERE {{ account_where or "true" }}
    GROUP BY 1
), {% endif -%}
videos AS (
    SELECT {{ "a.open_id" if join else "r." ~ account ~ "::text" }} AS open_id,
           r.{{ video_id }}::text AS video_id, min(r.{{ account }}::text) AS account,
           count(*) AS times
    FROM {% if where %}(SELECT * FROM {{ table }} WHERE {{ where }}){% else %}{{ table }}{% endif %} AS r
{%- if join %}
    LEFT JOIN accounts AS a ON a.key = r.{{ account }}
{%- endif %}
    WHERE r.{{ video_id }} IS NOT NULL
    GROUP BY 1, 2
)
SELECT {% if join -%}
       (SELECT count(*) FROM accounts WHERE open_ids > 1) AS ambiguous,
       (SELECT min(key::text) FROM accounts WHERE open_ids > 1) AS ambiguous_one,
       {%- else -%}
       0::bigint AS ambiguous, NULL::text AS ambiguous_one,
       {%- endif %}
       coalesce(sum(v.times), 0)::bigint AS rows,
       count(*) FILTER (WHERE v.times > 1 AND v.open_id IS NOT NULL) AS repeated,
       min(v.video_id) FILTER (WHERE v.times > 1 AND v.open_id IS NOT NULL) AS repeated_one,
       coalesce(sum(v.times) FILTER (WHERE v.open_id IS NULL), 0)::bigint AS without_open_id,
       min(v.account) FILTER (WHERE v.open_id IS NULL) AS without_open_id_one,
       count(*) FILTER (WHERE NOT length(v.video_id) BETWEEN 1 AND 20) AS unusable,
       min(v.video_id) FILTER (WHERE NOT length(v.video_id) BETWEEN 1 AND 20) AS unusable_one,
       count(*) FILTER (WHERE v.open_id IS NOT NULL AND k.open_id IS NULL) AS waiting_rows,
       count(DISTINCT v.open_id) FILTER (WHERE k.open_id IS NULL) AS waiting_accounts,
       0::bigint AS held, NULL::text AS held_one
FROM videos AS v
LEFT JOIN refresher.accounts AS k ON k.open_id = v.open_id
