-- Our tables whose rows a policy may hide, and whether any policy lets this role see and change
-- some of them. Without such a policy it sees no row.
SELECT relname::text,
       count(polname) FILTER (WHERE polcmd IN ('*', 'r'))
       * count(polname) FILTER (WHERE polcmd IN ('*', 'w')) > 0 AS allowed
FROM pg_class
LEFT JOIN pg_policy
    ON polrelid = pg_class.oid
    AND polpermissive
    AND EXISTS (
        SELECT 1 FROM unnest(polroles) AS chosen
        WHERE chosen = 0 OR pg_has_role(current_user, chosen, 'USAGE')
    )
WHERE relnamespace = 'refresher'::regnamespace
    AND relkind IN ('r', 'p')
    AND row_security_active(pg_class.oid)
GROUP BY relname
ORDER BY relname
