-- What the schema's default privileges give new tables is not what this one had.
SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', c.oid::regclass,
                       CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
FROM pg_partition_tree('refresher.videos') AS tree JOIN pg_class AS c ON c.oid = tree.relid
CROSS JOIN LATERAL aclexplode(c.relacl)
WHERE grantee <> c.relowner
