{% include "_patience.sql" %}
-- First, as a daemon may be at work on it: so it is not waited for with the tables locked.
UPDATE refresher.attachments SET detaching = true WHERE name = {{ name | literal }};
{% for trigger, table in triggers -%}
DROP TRIGGER IF EXISTS {{ trigger }} ON {{ table }};
{% endfor -%}
DROP FUNCTION IF EXISTS refresher.attached_{{ name }}_told();
DROP FUNCTION IF EXISTS refresher.attached_{{ name }}_account_told();
DROP FUNCTION IF EXISTS refresher.attached_{{ name }}_apply(text[], text[], text[]);
DROP FUNCTION IF EXISTS refresher.attached_{{ name }}_look_at(text[]);
DROP FUNCTION IF EXISTS refresher.attached_{{ name }}_carry(text[], text[]);
DROP FUNCTION IF EXISTS refresher.attached_{{ name }}_next(text, integer);
DO $refresher$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM refresher.attachments WHERE carries AND NOT detaching) THEN
        DROP TRIGGER IF EXISTS videos_carried ON refresher.videos;
    END IF;
END $refresher$;
