-- {{ command }}
--
-- Attaches {{ table }} to the cover refresher: tells it of inserted, changed and deleted videos
{%- if carries %}, and
-- lets it write fresh covers into {{ cover }}
{%- if expires %} and {{ expires }}{% endif %}
{%- endif %}.
-- Made by refresher {{ version }} for the columns as they are now: make it anew when they change.
-- Run it in one transaction; to run it again does no harm. It reads no rows.

{% include "_patience.sql" %}
{% from "_macros.sql" import live, telling, their_path, triggers with context -%}
{% set function = "refresher.attached_" ~ name -%}
{% set trigger = "refresher_" ~ name -%}
{% set rows = live(table, where) -%}
{% set accounts = live(account_table, account_where) if join -%}
{% macro read(video_id) -%}
{% if video_id_is_number -%}
CASE WHEN {{ video_id }} ~ '^[1-9][0-9]{0,17}$' OR {{ video_id }} ~ '^[1-8][0-9]{18}$'
                 THEN {{ video_id }}::{{ video_id_type }} END
{%- else %}{{ video_id }}::{{ video_id_type }}{% endif %}
{%- endmacro -%}
{% macro columns(open_id, video_id) -%}
{{ open_id }}::text AS open_id, {{ video_id }}::text AS video_id
{%- if cover %},
               r.{{ cover }}::text AS cover
{%- endif %}
{%- if expires %}, {{ expires_read }} AS expires_at
{%- endif %}
{%- endmacro -%}

{% macro forsaken(row) -%}
{# The attachment that has added it is no more: `detach --keep-videos` left it. -#}
({{ row }}.attached_by IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM refresher.attachments AS o
                                WHERE o.attachment = {{ row }}.attached_by))
{%- endmacro -%}
{% macro other_cover(ours, stored) -%}
{# A dead cover is no better than what the application has. -#}
{{ stored }}.cover_image_url IS NOT NULL AND {{ stored }}.cover_expires_at > now()
          AND ({{ ours }}.cover IS DISTINCT FROM {{ stored }}.cover_image_url
{%- if expires %}
               OR {{ ours }}.expires_at IS DISTINCT FROM date_trunc('second', {{ stored }}.cover_expires_at)
{%- endif %})
{%- endmacro -%}

{% include "_taken.sql" %}
INSERT INTO refresher.attachments (name, kind, mapping, tables, carries)
VALUES ({{ name | literal }}, 'videos', {{ mapping | literal }},
        ARRAY[{{ table | literal }}{% if join %}, {{ account_table | literal }}{% endif %}],
        {{ "true" if carries else "false" }})
ON CONFLICT (name) DO UPDATE
SET mapping = EXCLUDED.mapping, tables = EXCLUDED.tables, carries = EXCLUDED.carries,
    walked_to = '', walked_at = NULL, walk = attachments.walk + 1;

-- --- What the application changes is told. Its write neither fails nor waits for this ---

{% macro told(source) -%}
SELECT r.{{ account }}::text AS key, r.{{ video_id }}::text AS video_id
FROM {{ live(source, where) }} AS r
{%- endmacro -%}
{% macro told_differences() -%}
WITH old_videos AS (
    SELECT {{ told_columns }}
    FROM {{ live("old_rows", where) }} AS r
), new_videos AS (
    SELECT {{ told_columns }}
    FROM {{ live("new_rows", where) }} AS r
)
(TABLE old_videos EXCEPT TABLE new_videos) UNION ALL (TABLE new_videos EXCEPT TABLE old_videos)
{%- endmacro -%}
{{ telling(function ~ "_told", name, "accounts", true, 1000,
           told("new_rows"), told("old_rows"), told_differences()) }}

{{ triggers(trigger, table, function ~ "_told", changed, quiet=carries) }}
{% if join %}
-- A user who gets an open_id, loses it or gets another one: all videos of both are looked at again.
{% macro account_told(source) -%}
SELECT a.{{ account_open_id }}::text AS key
FROM {{ live(source, account_where) }} AS a
WHERE a.{{ account_open_id }} IS NOT NULL
{%- endmacro -%}
{% macro account_differences() -%}
WITH old_accounts AS (
    SELECT a.{{ account_open_id }}::text AS key, a.{{ account_key }} AS leads_there
    FROM {{ live("old_rows", account_where) }} AS a
), new_accounts AS (
    SELECT a.{{ account_open_id }}::text AS key, a.{{ account_key }} AS leads_there
    FROM {{ live("new_rows", account_where) }} AS a
)
SELECT key
FROM ((TABLE old_accounts EXCEPT TABLE new_accounts)
      UNION ALL (TABLE new_accounts EXCEPT TABLE old_accounts)) AS changed
WHERE key IS NOT NULL
{%- endmacro -%}
{{ telling(function ~ "_account_told", name, "open_ids", false, 50,
           account_told("new_rows"), account_told("old_rows"), account_differences()) }}

{{ triggers(trigger ~ "_account", account_table, function ~ "_account_told", account_changed) }}
{% endif %}
-- --- What the daemon calls ---

-- Brings refresher.videos to what the application's table says now of these videos. `told_accounts`
-- are values of its account column, or `told_open_ids` are given; with a video ID each. Only videos
-- that this attachment has added are taken away.
CREATE OR REPLACE FUNCTION {{ function }}_apply(
    told_accounts text[], told_open_ids text[], told_video_ids text[],
    OUT added bigint, OUT removed bigint, OUT unknown bigint, OUT unusable bigint
)
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms'
-- Where policies would hide rows it fails: rows that are hidden look like deleted ones.
SET row_security = off
AS $refresher$
-- Of the same name the table's column is meant.
#variable_conflict use_column
DECLARE
    this smallint := (SELECT attachment FROM refresher.attachments
                      WHERE attachments.name = {{ name | literal }});
BEGIN
    WITH {{ their_path() }}, named AS MATERIALIZED (
        -- A row: a video that may have changed.
{%- if join %}
        SELECT a.{{ account_open_id }}::text AS open_id, t.video_id
        FROM unnest(told_accounts, told_video_ids) AS t (account, video_id)
        JOIN {{ accounts }} AS a ON a.{{ account_key }} = t.account::{{ account_key_type }}
        WHERE a.{{ account_open_id }} IS NOT NULL
{%- else %}
        SELECT t.open_id, t.video_id
        FROM unnest(told_accounts, told_video_ids) AS t (open_id, video_id)
        WHERE t.open_id IS NOT NULL
{%- endif %}
          AND t.video_id IS NOT NULL
        UNION
        SELECT t.open_id, t.video_id
        FROM unnest(told_open_ids, told_video_ids) AS t (open_id, video_id)
        WHERE t.open_id IS NOT NULL AND t.video_id IS NOT NULL
{%- if join %}
    ), keyed AS MATERIALIZED (
        -- Its row is found by account and video at once: an account may have very many.
        SELECT n.*, a.{{ account_key }} AS leads_there
        FROM named AS n
        JOIN {{ accounts }} AS a ON a.{{ account_open_id }} = n.open_id::{{ open_id_type }}
{%- endif %}
    ), present AS MATERIALIZED (
        -- A row: a video as the application has it.
        SELECT {{ columns("n.open_id", "n.video_id") }}
{%- if join %}
        FROM keyed AS n
        JOIN {{ rows }} AS r
             ON r.{{ account }} = n.leads_there
{%- else %}
        FROM named AS n
        JOIN {{ rows }} AS r
             ON r.{{ account }} = n.open_id::{{ open_id_type }}
{%- endif %}
             AND r.{{ video_id }} = {{ read("n.video_id") }}
    ), insertion AS (
        INSERT INTO refresher.videos
               (open_id, video_id, attached_by
               {%- if expires %}, cover_image_url, cover_expires_at, reserve{% endif %})
        SELECT DISTINCT ON (p.open_id, p.video_id)
               p.open_id, p.video_id, this
               {%- if expires %},
               CASE WHEN p.expires_at > now() THEN nullif(p.cover, '') END,
               CASE WHEN p.expires_at > now() AND p.cover <> '' THEN p.expires_at END,
               -- Keeps room for the first cover.
               CASE WHEN p.expires_at > now() AND p.cover <> '' THEN NULL ELSE repeat('.', 340) END
               {%- endif %}
        FROM present AS p CROSS JOIN their_path
        WHERE length(p.video_id) BETWEEN 1 AND 20
          AND EXISTS (SELECT 1 FROM refresher.accounts AS k WHERE k.open_id = p.open_id)
          AND NOT EXISTS (SELECT 1 FROM refresher.videos AS v
                          WHERE v.open_id = p.open_id AND v.video_id = p.video_id)
        -- In one order, as any two writers of the same rows should.
        ORDER BY p.open_id, p.video_id
        ON CONFLICT DO NOTHING
        RETURNING videos.open_id
    ), adoption AS (
        UPDATE refresher.videos AS v
        SET attached_by = this
        FROM present AS p CROSS JOIN their_path
        WHERE v.open_id = p.open_id AND v.video_id = p.video_id AND {{ forsaken("v") }}
    ), absent AS MATERIALIZED (
        -- A row: a video that the application has no more.
        SELECT n.open_id, n.video_id FROM named AS n
        EXCEPT
        SELECT p.open_id, p.video_id FROM present AS p
    ), removal AS (
        DELETE FROM refresher.videos AS v
        USING absent AS x CROSS JOIN their_path
        WHERE v.open_id = x.open_id AND v.video_id = x.video_id AND v.attached_by = this
        RETURNING v.open_id, v.video_id
    ), others_told AS (
        -- Another attached table may have the same video.
        INSERT INTO refresher.changed_rows (attachment, open_ids, video_ids)
        SELECT o.name, array_agg(x.open_id), array_agg(x.video_id)
        FROM removal AS x
        JOIN refresher.attachments AS o
             ON o.attachment <> this AND o.kind = 'videos' AND NOT o.detaching
        GROUP BY o.name
{%- if carries %}
    ), covers_told AS (
        -- The application has another cover than we: one that it has saved again, say.
        INSERT INTO refresher.changed_covers (attachment, open_ids, video_ids)
        SELECT {{ name | literal }}, array_agg(v.open_id), array_agg(v.video_id)
        FROM present AS p JOIN refresher.videos AS v USING (open_id, video_id)
        WHERE {{ other_cover("p", "v") }}
        HAVING count(*) > 0
{%- endif %}
    )
    SELECT (SELECT count(*) FROM insertion), (SELECT count(*) FROM removal),
           (SELECT count(*) FROM present AS p
            WHERE NOT EXISTS (SELECT 1 FROM refresher.accounts AS k WHERE k.open_id = p.open_id)),
           (SELECT count(*) FROM present AS p WHERE NOT length(p.video_id) BETWEEN 1 AND 20)
    INTO added, removed, unknown, unusable;
END
$refresher$;

-- Looks at all videos of these accounts, and tells of those that differ: they are applied as what
-- the application's triggers tell is. So it writes nothing but the queues, however many there are.
CREATE OR REPLACE FUNCTION {{ function }}_look_at(
    told_open_ids text[], OUT added bigint, OUT removed bigint
)
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms'
SET row_security = off
AS $refresher$
#variable_conflict use_column
DECLARE
    this smallint := (SELECT attachment FROM refresher.attachments
                      WHERE attachments.name = {{ name | literal }});
BEGIN
    WITH known AS MATERIALIZED (
        SELECT k.open_id FROM refresher.accounts AS k WHERE k.open_id = ANY (told_open_ids)
    ), present AS MATERIALIZED (
        -- A row: a video as the application has it.
{%- if join %}
        SELECT {{ columns("k.open_id", "r." ~ video_id) }}
        FROM known AS k
        JOIN {{ accounts }} AS a ON a.{{ account_open_id }} = k.open_id::{{ open_id_type }}
        JOIN {{ rows }} AS r ON r.{{ account }} = a.{{ account_key }}
{%- else %}
        SELECT {{ columns("k.open_id", "r." ~ video_id) }}
        FROM known AS k
        JOIN {{ rows }} AS r ON r.{{ account }} = k.open_id::{{ open_id_type }}
{%- endif %}
        WHERE length(r.{{ video_id }}::text) BETWEEN 1 AND 20
    ), stored AS MATERIALIZED (
        SELECT v.open_id, v.video_id, v.cover_image_url, v.cover_expires_at,
               v.attached_by = this AS ours, {{ forsaken("v") }} AS forsaken
        FROM refresher.videos AS v
        WHERE v.open_id = ANY (told_open_ids)
    ), differing AS MATERIALIZED (
        -- A row: a video that only one side has.
        SELECT p.open_id, p.video_id, true AS is_new
        FROM present AS p
        WHERE NOT EXISTS (SELECT 1 FROM stored AS s
                          WHERE s.open_id = p.open_id AND s.video_id = p.video_id
                            AND NOT s.forsaken)
        UNION ALL
        SELECT s.open_id, s.video_id, false
        FROM stored AS s
        WHERE s.ours AND NOT EXISTS (SELECT 1 FROM present AS p
                                     WHERE p.open_id = s.open_id AND p.video_id = s.video_id)
    ), told AS (
        INSERT INTO refresher.changed_rows (attachment, open_ids, video_ids)
        SELECT {{ name | literal }}, array_agg(open_id), array_agg(video_id)
        FROM (SELECT open_id, video_id, row_number() OVER () / 1000 AS part FROM differing) AS d
        GROUP BY part
{%- if carries %}
    ), covers_told AS (
        -- The application has another cover than we.
        INSERT INTO refresher.changed_covers (attachment, open_ids, video_ids)
        SELECT {{ name | literal }}, array_agg(open_id), array_agg(video_id)
        FROM (SELECT open_id, video_id, row_number() OVER () / 1000 AS part
              FROM present AS p JOIN stored AS s USING (open_id, video_id)
              WHERE {{ other_cover("p", "s") }}) AS d
        GROUP BY part
{%- endif %}
    )
    SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new)
    INTO added, removed
    FROM differing;
END
$refresher$;
{% if carries %}
-- Writes covers into the application's rows that have others. Says of which videos the application
-- holds a row locked just now.
CREATE OR REPLACE FUNCTION {{ function }}_carry(
    told_open_ids text[], told_video_ids text[],
    OUT carried bigint, OUT locked_open_ids text[], OUT locked_video_ids text[]
)
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' SET row_security = off
AS $refresher$
#variable_conflict use_column
BEGIN
    -- So the trigger of the table does not answer our own echo. Not as a clause of the function: there
    -- only a superuser may set a parameter of an extension's kind.
    PERFORM set_config('refresher.carrying', 'on', true);
    WITH {{ their_path() }}, fresh AS MATERIALIZED (
        -- A row: a video with its cover. The application's own may live longer than a dead one.
        SELECT DISTINCT v.open_id, v.video_id, v.cover_image_url, v.cover_expires_at
        FROM unnest(told_open_ids, told_video_ids) AS t (open_id, video_id)
        JOIN refresher.videos AS v USING (open_id, video_id)
        WHERE v.cover_image_url IS NOT NULL AND v.cover_expires_at > now()
{%- if join %}
    ), keyed AS MATERIALIZED (
        -- Its row is found by account and video at once: an account may have very many.
        SELECT f.*, a.{{ account_key }} AS leads_there
        FROM fresh AS f
        JOIN {{ accounts }} AS a ON a.{{ account_open_id }} = f.open_id::{{ open_id_type }}
{%- endif %}
    ), differing AS MATERIALIZED (
        -- A row: a row of the application that has another cover.
        SELECT f.open_id, f.video_id, r.ctid AS at, r.{{ account }} AS account,
               r.{{ video_id }} AS video, f.cover_image_url AS cover
               {%- if expires %}, {{ expires_written }} AS expires{% endif %}
{%- if join %}
        FROM keyed AS f
        JOIN (SELECT ctid, * FROM {{ table }}{{ " WHERE " ~ where if where }}) AS r
             ON r.{{ account }} = f.leads_there
{%- else %}
        FROM fresh AS f
        JOIN (SELECT ctid, * FROM {{ table }}{{ " WHERE " ~ where if where }}) AS r
             ON r.{{ account }} = f.open_id::{{ open_id_type }}
{%- endif %}
             AND r.{{ video_id }} = {{ read("f.video_id") }}
        WHERE r.{{ cover }} IS DISTINCT FROM f.cover_image_url
{%- if expires %} OR r.{{ expires }} IS DISTINCT FROM {{ expires_written }}{% endif %}
    ), free AS MATERIALIZED (
        -- A row: such a row that nobody holds locked, now locked by us.
        SELECT d.*
        FROM differing AS d
        CROSS JOIN their_path
        JOIN {{ table }} AS r
             ON r.{{ account }} = d.account AND r.{{ video_id }} = d.video AND r.ctid = d.at
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ), written AS (
        UPDATE {{ table }} AS r
        SET {{ cover }} = f.cover{% if expires %}, {{ expires }} = f.expires{% endif %}
        FROM free AS f
        WHERE r.{{ account }} = f.account AND r.{{ video_id }} = f.video AND r.ctid = f.at
        RETURNING f.open_id
    ), locked AS (
        SELECT open_id, video_id FROM differing EXCEPT SELECT open_id, video_id FROM free
    )
    SELECT (SELECT count(*) FROM written), array_agg(open_id), array_agg(video_id) FROM locked
    INTO carried, locked_open_ids, locked_video_ids;
    PERFORM set_config('refresher.carrying', '', true);
END
$refresher$;
{% endif %}
-- The accounts that the walk looks at next.
CREATE OR REPLACE FUNCTION {{ function }}_next(after text, most integer) RETURNS SETOF text
LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $refresher$
    SELECT a.open_id FROM refresher.accounts AS a
    WHERE a.open_id > after ORDER BY a.open_id LIMIT most
$refresher$;

{% include "_rights.sql" %}
{% if carries %}
-- Tells which covers a write-back has changed.
CREATE OR REPLACE TRIGGER videos_carried
AFTER UPDATE ON refresher.videos
REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION refresher.tell_of_covers();
{% endif %}
