-- Takes away what the schema's default privileges give a new table and the old one did not have.
SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', c.oid::regclass,
                       CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
FROM pg_partition_tree('refresher.videos') AS tree JOIN pg_class AS c ON c.oid = tree.relid
CROSS JOIN LATERAL aclexplode(c.relacl)
WHERE grantee <> c.relowner
