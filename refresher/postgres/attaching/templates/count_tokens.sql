WITH tokens AS (
    SELECT r.{{ open_id }}::text AS open_id, count(*) AS times,
           bool_and(r.{{ access_token }}::text LIKE 'act.%') AS likely
    FROM {% if where %}(SELECT * FROM {{ table }} WHERE {{ where }}){% else %}{{ table }}{% endif %} AS r
    WHERE r.{{ access_token }}::text <> ''
    GROUP BY 1
), held AS (
    -- A row: an account of which another attached table has brought other tokens.
    SELECT t.open_id
    FROM {% if where %}(SELECT * FROM {{ table }} WHERE {{ where }}){% else %}{{ table }}{% endif %} AS r
    JOIN refresher.attached_tokens AS t ON t.open_id = r.{{ open_id }}::text
    JOIN refresher.attachments AS o ON o.name = t.attachment AND NOT o.detaching
    WHERE t.attachment <> {{ name | literal }} AND r.{{ access_token }}::text <> ''
      AND substr(sha256(convert_to(r.{{ taken_by }}::text, 'UTF8')), 1, 16) <> ALL (t.taken)
)
SELECT 0::bigint AS ambiguous, NULL::text AS ambiguous_one,
       coalesce(sum(times) FILTER (WHERE open_id IS NOT NULL), 0)::bigint AS rows,
       count(*) FILTER (WHERE times > 1 AND open_id IS NOT NULL) AS repeated,
       min(open_id) FILTER (WHERE times > 1) AS repeated_one,
       coalesce(sum(times) FILTER (WHERE open_id IS NULL), 0)::bigint AS without_open_id,
       NULL::text AS without_open_id_one,
       count(*) FILTER (WHERE NOT likely AND open_id IS NOT NULL) AS unusable,
       min(open_id) FILTER (WHERE NOT likely) AS unusable_one,
       0::bigint AS waiting_rows, 0::bigint AS waiting_accounts,
       (SELECT count(*) FROM held) AS held, (SELECT min(open_id) FROM held) AS held_one
FROM tokens
