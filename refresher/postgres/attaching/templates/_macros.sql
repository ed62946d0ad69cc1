{# Rows of a table, or of a transition table, that are attached. -#}
{% macro live(source, condition) -%}
{% if condition %}(SELECT * FROM {{ source }} WHERE {{ condition }}){% else %}{{ source }}{% endif %}
{%- endmacro -%}
{# A row for a query whose writes call triggers of the application: those find names as in any session
   of the daemon's role. What the query itself names is found before, by the function's own path. -#}
{% macro their_path() -%}
their_path AS MATERIALIZED (
        SELECT set_config('search_path', reset_val, true) FROM pg_settings WHERE name = 'search_path'
    )
{%- endmacro -%}
{# A trigger's function that tells of rows. `column` of the queue gets the keys that the queries
   `inserted`, `deleted` and `updated` give, with a `video_id` each where there are `videos`; `most` is
   how many a row of the queue tells of. -#}
{% macro telling(function, what, column, videos, most, inserted, deleted, updated) -%}
{% set selected %}array_agg(key){% if videos %}, array_agg(video_id){% endif %}{% endset -%}
{% set into %}told_keys{% if videos %}, told_videos{% endif %}{% endset -%}
{% set target %}refresher.changed_rows (attachment, {{ column }}{% if videos %}, video_ids{% endif %}){% endset -%}
CREATE OR REPLACE FUNCTION {{ function }}() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms'
AS $refresher$
-- Of the same name the table's column is meant.
#variable_conflict use_column
DECLARE
    told_keys   text[];
{%- if videos %}
    told_videos text[];
{%- endif %}
    told_of     text;
    told_at     text;
    told_first  text;
    told_before text[];
    told_all    boolean := true;
    told_marker text;
BEGIN
    IF TG_LEVEL = 'ROW' THEN
        -- How many rows this transaction has updated: one number for all calls of a statement, another
        -- one for the next. By trigger, table and depth, as others are updated in between.
        told_of := {{ (function | replace("attached_", "") ~ "_") | literal }} || TG_RELID || '_' || pg_trigger_depth();
        told_at := pg_stat_get_xact_tuples_updated(TG_RELID);
        told_before := string_to_array(current_setting(told_of, true), ' ');
        IF told_at <> '0' AND told_before[1] = told_at AND told_before[3] = 'all' THEN
            RETURN NULL;
        END IF;
        -- The first row is the same: this may be the statement that was told of, after a trigger has
        -- updated the table in between, or another one that begins alike. So this row alone is told, not
        -- all of them for each.
        told_first := hashtextextended((SELECT (r.*)::text FROM old_rows AS r LIMIT 1)
                                       || (SELECT (r.*)::text FROM new_rows AS r LIMIT 1), 0);
        told_all := told_before[2] IS DISTINCT FROM told_first;
        told_marker := concat_ws(' ', told_at, told_first, CASE WHEN told_all THEN 'all' ELSE 'one' END);
        PERFORM set_config(told_of, told_marker, true);
    END IF;
    IF TG_OP = 'INSERT' THEN
        SELECT {{ selected }} INTO {{ into }} FROM (
{{ inserted | indent(12, true) }}
        ) AS told;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT {{ selected }} INTO {{ into }} FROM (
{{ deleted | indent(12, true) }}
        ) AS told;
    ELSIF TG_OP = 'UPDATE' AND NOT told_all THEN
        SELECT {{ selected }} INTO {{ into }} FROM (
            WITH old_rows AS (SELECT OLD.*), new_rows AS (SELECT NEW.*)
            SELECT * FROM (
{{ updated | indent(16, true) }}
            ) AS changed
        ) AS told;
    ELSIF TG_OP = 'UPDATE' THEN
        SELECT {{ selected }} INTO {{ into }} FROM (
{{ updated | indent(12, true) }}
        ) AS told;
    ELSE
        -- After a TRUNCATE all accounts are looked at again.
        INSERT INTO refresher.changed_rows (attachment, open_ids) VALUES ({{ what | literal }}, '{}');
    END IF;
    IF cardinality(told_keys) <= {{ most }} THEN
        INSERT INTO {{ target }}
        VALUES ({{ what | literal }}, {{ into }});
    ELSIF told_keys IS NOT NULL THEN
        INSERT INTO {{ target }}
        SELECT {{ what | literal }}, {{ selected }}
        -- Not by slices of the arrays: for each one the server reads from the array's beginning.
        FROM unnest({{ into }}) WITH ORDINALITY AS t (key{% if videos %}, video_id{% endif %}, place)
        GROUP BY (place - 1) / {{ most }};
    ELSIF TG_OP <> 'TRUNCATE' THEN
        RETURN NULL;
    END IF;
    PERFORM refresher.tell_daemons();
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- The application's write does not fail for this: the walk through all accounts mends it. And no
    -- other row of the statement waits as long.
    RAISE LOG 'refresher: a change of {{ what }} was not told: % (%)', SQLERRM, SQLSTATE;
    IF TG_LEVEL = 'ROW' THEN
        PERFORM set_config(told_of, told_marker, true);
    END IF;
    RETURN NULL;
END
$refresher$;
{%- endmacro -%}
{# `changed` is true of an updated row that is news; None: the table may have no such trigger. -#}
{% macro triggers(prefix, table, function, changed, quiet=false) -%}
CREATE OR REPLACE TRIGGER {{ prefix }}_inserted
AFTER INSERT ON {{ table }}
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION {{ function }}();

{% if changed -%}
-- For a row that is news, as the server looks before it calls a function; the first one of a statement
-- tells of all{% if quiet %}. Not when the daemon writes covers{% endif %}.
{% elif quiet -%}
-- Not when the daemon writes covers.
{% endif -%}
CREATE OR REPLACE TRIGGER {{ prefix }}_updated
AFTER UPDATE ON {{ table }}
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH {{ "ROW" if changed else "STATEMENT" }}
{%- if changed or quiet %}
WHEN (
{%- if quiet %}current_setting('refresher.carrying', true) IS DISTINCT FROM 'on'{% endif %}
{%- if changed and quiet %}
      AND ({% endif %}
{%- if changed %}{{ changed | join("
           OR ") }}{% endif %}
{%- if changed and quiet %}){% endif %})
{%- endif %}
EXECUTE FUNCTION {{ function }}();

CREATE OR REPLACE TRIGGER {{ prefix }}_deleted
AFTER DELETE ON {{ table }}
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION {{ function }}();

CREATE OR REPLACE TRIGGER {{ prefix }}_truncated
AFTER TRUNCATE ON {{ table }}
FOR EACH STATEMENT EXECUTE FUNCTION {{ function }}();
{%- endmacro -%}
