-- How the server reads a condition: of a function that a transaction has made of it, and will undo.
SELECT pg_get_function_sqlbody(f.oid) AS body,
       -- The body is stored as a tree of nodes, with a field of these names for each.
       f.prosqlbody::text LIKE '%:hasSubLinks true%' AS has_subquery,
       (
           SELECT min(called.oid::regprocedure::text)
           FROM regexp_matches(f.prosqlbody::text, ':(?:funcid|opfuncid) (\d+)', 'g') AS found (ids)
           JOIN pg_proc AS called ON called.oid = found.ids[1]::oid
           WHERE called.provolatile = 'v'
       ) AS volatile
FROM pg_proc AS f
WHERE f.oid = to_regprocedure(:function)
