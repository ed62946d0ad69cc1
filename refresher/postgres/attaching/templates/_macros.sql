{# Rows of a table, or of a transition table, that are attached. -#}
{% macro live(source, condition) -%}
{% if condition %}(SELECT * FROM {{ source }} WHERE {{ condition }}){% else %}{{ source }}{% endif %}
{%- endmacro -%}
{# A trigger's function that tells of rows: `insert`, `delete` and `update` are what it tells. -#}
{% macro telling(function, what, inserted, deleted, updated) -%}
CREATE OR REPLACE FUNCTION {{ function }}() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms'
AS $refresher$
#variable_conflict use_column
BEGIN
    IF TG_OP = 'INSERT' THEN
{{ inserted | indent(8, true) }}
    ELSIF TG_OP = 'DELETE' THEN
{{ deleted | indent(8, true) }}
    ELSIF TG_OP = 'UPDATE' THEN
{{ updated | indent(8, true) }}
    ELSE
        -- After a TRUNCATE all accounts are looked at again.
        INSERT INTO refresher.changed_rows (attachment, open_ids) VALUES ({{ what | literal }}, '{}');
    END IF;
    IF FOUND THEN
        PERFORM refresher.tell_daemons();
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- The application's write does not fail for this: the walk through all accounts mends it.
    RAISE LOG 'refresher: a change of {{ what }} was not told: % (%)', SQLERRM, SQLSTATE;
    RETURN NULL;
END
$refresher$;
{%- endmacro -%}
{% macro triggers(prefix, table, function, quiet=false) -%}
CREATE OR REPLACE TRIGGER {{ prefix }}_inserted
AFTER INSERT ON {{ table }}
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION {{ function }}();

{% if quiet -%}
-- Not when the daemon writes covers.
{% endif -%}
CREATE OR REPLACE TRIGGER {{ prefix }}_updated
AFTER UPDATE ON {{ table }}
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT
{%- if quiet %} WHEN (current_setting('refresher.carrying', true) IS DISTINCT FROM 'on')
{%- endif %} EXECUTE FUNCTION {{ function }}();

CREATE OR REPLACE TRIGGER {{ prefix }}_deleted
AFTER DELETE ON {{ table }}
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION {{ function }}();
{%- endmacro -%}
