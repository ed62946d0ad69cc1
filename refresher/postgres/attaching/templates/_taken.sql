-- The name must not be that of another table, and the table must have no other.
DO $refresher$
DECLARE
    taken text;
BEGIN
    SELECT coalesce(a.mapping->>'table', a.name) INTO taken
    FROM refresher.attachments AS a
    LEFT JOIN pg_catalog.pg_proc AS p
         ON p.pronamespace = 'refresher'::regnamespace
         AND p.proname = 'attached_' || a.name || '_told'
    LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgfoid = p.oid
    WHERE CASE WHEN a.name = {{ name | literal }}
               THEN a.tables[1] <> {{ table | literal }}
                    OR t.tgrelid <> {{ table | literal }}::regclass
               ELSE t.tgrelid = {{ table | literal }}::regclass END
    LIMIT 1;
    IF EXISTS (SELECT 1 FROM refresher.attachments AS a
               WHERE a.name = {{ name | literal }} AND a.detaching) THEN
        RAISE EXCEPTION 'detach of {{ table | replace("'", "''") | replace("%", "%%") }} was not completed: run it again';
    END IF;
    IF taken IS NOT NULL THEN
        RAISE EXCEPTION 'the attachment of % has the name or the triggers of {{ table | replace("'", "''") | replace("%", "%%") }}', taken
            USING HINT = 'refresher detach --table ' || taken;
    END IF;
END
$refresher$;
