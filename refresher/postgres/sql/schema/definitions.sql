-- The statements that make again what LIKE leaves out. They are read while the table still has its
-- own name, so they say refresher.videos. Keys come before what refers to them, rights come last.
SELECT statement
FROM (
    SELECT CASE contype WHEN 'f' THEN 2 ELSE 1 END AS place,
           format('ALTER TABLE refresher.videos ADD CONSTRAINT %I %s',
                  conname, pg_get_constraintdef(oid)) AS statement
    FROM pg_constraint
    WHERE conrelid = 'refresher.videos'::regclass AND contype IN ('p', 'u', 'x', 'f')
    UNION ALL
    SELECT 1, pg_get_indexdef(indexrelid)
    FROM pg_index
    WHERE indrelid = 'refresher.videos'::regclass
      AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
    UNION ALL
    SELECT 3, pg_get_triggerdef(oid)
    FROM pg_trigger
    WHERE tgrelid = 'refresher.videos'::regclass AND NOT tgisinternal
    UNION ALL
    SELECT 4, format('ALTER TABLE refresher.videos %s TRIGGER %I',
                     CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
                                    ELSE 'ENABLE REPLICA' END, tgname)
    FROM pg_trigger
    WHERE tgrelid = 'refresher.videos'::regclass AND NOT tgisinternal AND tgenabled <> 'O'
    UNION ALL
    SELECT 4, format('COMMENT ON TABLE refresher.videos IS %L', description)
    FROM pg_description
    WHERE objoid = 'refresher.videos'::regclass
      AND classoid = 'pg_class'::regclass
      AND objsubid = 0
    UNION ALL
    SELECT 5, format('GRANT %s ON refresher.videos TO %s%s', privilege_type,
                     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
    FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner)))
    WHERE pg_class.oid = 'refresher.videos'::regclass AND grantee <> relowner
    UNION ALL
    SELECT 5, format('GRANT %s (%I) ON refresher.videos TO %s%s', privilege_type, attname,
                     CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
    FROM pg_attribute, aclexplode(attacl)
    WHERE attrelid = 'refresher.videos'::regclass
) AS definitions
ORDER BY place, statement
