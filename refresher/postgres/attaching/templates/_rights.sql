-- Triggers need no right to their functions, and only the daemon calls the others: who may change
-- accounts.
DO $refresher$
DECLARE
    callable regprocedure;
    granted  regrole;
BEGIN
    FOR callable IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'refresher'::regnamespace
          AND p.proname IN ({{ callables | map("literal") | join(", ") }})
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', callable);
        CONTINUE WHEN callable::text LIKE '%\_told()';
        FOR granted IN
            SELECT DISTINCT acl.grantee
            FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS acl
            WHERE c.oid = 'refresher.accounts'::regclass AND acl.privilege_type = 'UPDATE'
              AND acl.grantee <> 0
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', callable, granted);
        END LOOP;
    END LOOP;
END
$refresher$;
