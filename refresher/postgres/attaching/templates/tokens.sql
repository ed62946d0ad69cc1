-- {{ command }}
--
-- Attaches {{ table }} to the cover refresher: tells it of new, changed and deleted tokens.
{%- if managed %}
-- The daemon holds the pairs and renews them. Of the table it takes each authorization once.
{%- else %}
-- The application renews the tokens: the daemon gets each new access token, and no refresh token.
{%- endif %}
-- Made by refresher {{ version }} for the columns as they are now: make it anew when they change.
-- Run it in one transaction; to run it again does no harm. It reads no rows.

{% include "_patience.sql" %}
{% from "_macros.sql" import live, telling, their_path, triggers with context -%}
{% set function = "refresher.attached_" ~ name -%}
{% set trigger = "refresher_" ~ name -%}

{% include "_taken.sql" %}
INSERT INTO refresher.attachments (name, kind, mapping, tables, carries)
VALUES ({{ name | literal }}, 'tokens', {{ mapping | literal }}, ARRAY[{{ table | literal }}], false)
ON CONFLICT (name) DO UPDATE
SET mapping = EXCLUDED.mapping, tables = EXCLUDED.tables, carries = EXCLUDED.carries,
    walked_to = '', walked_at = NULL, walk = attachments.walk + 1;

-- --- What the application changes is told. Its write neither fails nor waits for this ---

{% macro told(source) -%}
SELECT r.{{ open_id }}::text AS key
FROM {{ live(source, where) }} AS r
WHERE r.{{ open_id }} IS NOT NULL
{%- endmacro -%}
{% macro told_differences() -%}
WITH old_tokens AS (
    SELECT {{ told_columns }}
    FROM {{ live("old_rows", where) }} AS r
), new_tokens AS (
    SELECT {{ told_columns }}
    FROM {{ live("new_rows", where) }} AS r
)
SELECT key
FROM ((TABLE old_tokens EXCEPT TABLE new_tokens)
      UNION ALL (TABLE new_tokens EXCEPT TABLE old_tokens)) AS changed
WHERE key IS NOT NULL
{%- endmacro -%}
{{ telling(function ~ "_told", name, "open_ids", false, 50,
           told("new_rows"), told("old_rows"), told_differences()) }}

{{ triggers(trigger, table, function ~ "_told", changed) }}

-- --- What the daemon calls ---

-- Brings refresher.accounts to what the application's table says now of these accounts. Tokens that
-- were taken over once are never taken again: an old row that is saved again brings back no old pair.
CREATE OR REPLACE FUNCTION {{ function }}_look_at(
    told_open_ids text[], OUT added bigint, OUT removed bigint
)
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms'
-- Where policies would hide rows it fails: rows that are hidden look like deleted ones.
SET row_security = off
AS $refresher$
#variable_conflict use_column
BEGIN
    WITH {{ their_path() }}, held AS MATERIALIZED (
        -- A row: tokens that the application has of an account.
        SELECT r.{{ open_id }}::text AS open_id,
               nullif(r.{{ access_token }}::text, '') AS access_token,
               {{ access_token_expires }} AS access_token_expires_at,
               {{ refresh_token }} AS refresh_token,
               {{ refresh_token_expires }} AS refresh_token_expires_at,
               {{ scope }} AS scope,
               substr(sha256(convert_to(r.{{ taken_by }}::text, 'UTF8')), 1, 16) AS fingerprint
        FROM {{ live(table, where) }} AS r
        WHERE r.{{ open_id }} = ANY (told_open_ids::{{ open_id_type }}[])
    ), present AS MATERIALIZED (
        -- A row: an account. Of several rows one with tokens that are new, and else one with tokens.
        SELECT DISTINCT ON (h.open_id) h.*
        FROM held AS h
        LEFT JOIN refresher.attached_tokens AS t USING (open_id)
        ORDER BY h.open_id, h.access_token IS NULL, h.fingerprint = ANY (t.taken)
    ), authorized AS MATERIALIZED (
        -- A row: an account with tokens that were not taken over before.
        SELECT p.*
        FROM present AS p
        LEFT JOIN refresher.attached_tokens AS t USING (open_id)
        WHERE p.access_token IS NOT NULL AND p.{{ "refresh_token" if managed else "access_token" }} IS NOT NULL
          AND length(p.open_id) > 0
          AND (t.open_id IS NULL OR p.fingerprint <> ALL (t.taken))
    ), note AS (
        INSERT INTO refresher.attached_tokens AS t (open_id, attachment, taken)
        SELECT open_id, {{ name | literal }}, ARRAY[fingerprint] FROM authorized
        ORDER BY open_id
        ON CONFLICT (open_id) DO UPDATE
        SET attachment = EXCLUDED.attachment, taken = (EXCLUDED.taken || t.taken)[:32]
        -- Not if another attached table has brought the same just now.
        WHERE EXCLUDED.taken[1] <> ALL (t.taken)
        RETURNING t.open_id
    ), insertion AS (
        INSERT INTO refresher.accounts
               (open_id, access_token, access_token_expires_at, refresh_token,
                refresh_token_expires_at, scope)
        SELECT n.open_id, n.access_token, n.access_token_expires_at, n.refresh_token,
               n.refresh_token_expires_at, n.scope
        FROM authorized AS n JOIN note USING (open_id) CROSS JOIN their_path
        WHERE NOT EXISTS (SELECT 1 FROM refresher.accounts AS a WHERE a.open_id = n.open_id)
        ORDER BY n.open_id
        RETURNING accounts.open_id
    ), change AS (
        UPDATE refresher.accounts AS a
        SET access_token = n.access_token,
            access_token_expires_at = n.access_token_expires_at,
            refresh_token = n.refresh_token,
            refresh_token_expires_at = n.refresh_token_expires_at,
            scope = coalesce(n.scope, a.scope)
        FROM (SELECT * FROM authorized JOIN note USING (open_id) ORDER BY open_id) AS n
             CROSS JOIN their_path
        WHERE a.open_id = n.open_id
        RETURNING a.open_id
    ), absent AS MATERIALIZED (
        -- A row: an account of which the application has deleted the tokens.
        SELECT t.open_id
        FROM refresher.attached_tokens AS t
        WHERE t.open_id = ANY (told_open_ids) AND t.attachment = {{ name | literal }}
          AND NOT EXISTS (SELECT 1 FROM present AS p
                          WHERE p.open_id = t.open_id AND p.access_token IS NOT NULL)
    ), pause AS (
        -- The pair is kept: it may be the only living one. `accounts remove` forgets it.
        UPDATE refresher.accounts AS a
        SET state = 'paused', state_reason = 'deleted_by_application', state_since = now()
        FROM absent AS x CROSS JOIN their_path
        WHERE a.open_id = x.open_id AND a.state <> 'paused'
        RETURNING a.open_id
{%- include "_shared_tokens.sql" %}
    )
    SELECT (SELECT count(*) FROM insertion) + (SELECT count(*) FROM change),
           (SELECT count(*) FROM pause)
    INTO added, removed;
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
{% include "_token_owner.sql" %}END
$refresher$;

-- The accounts that the walk looks at next: those of the table, and those that it no longer has.
CREATE OR REPLACE FUNCTION {{ function }}_next(after text, most integer) RETURNS SETOF text
LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off
AS $refresher$
    SELECT open_id
    FROM (
        (SELECT r.{{ open_id }}::text AS open_id FROM {{ live(table, where) }} AS r
         WHERE r.{{ open_id_in_order }} > after ORDER BY r.{{ open_id_in_order }} LIMIT most)
        UNION
        (SELECT t.open_id FROM refresher.attached_tokens AS t
         WHERE t.open_id > after AND t.attachment = {{ name | literal }}
         ORDER BY t.open_id LIMIT most)
    ) AS both_sides
    ORDER BY open_id LIMIT most
$refresher$;

{% include "_rights.sql" %}
