-- The attachment of a table: which has its triggers; or else had it, or was attached as the operator
-- names it.
SELECT a.attachment, a.name, a.kind, a.mapping, a.walked_at, a.detaching
FROM refresher.attachments AS a
LEFT JOIN pg_proc AS p
     ON p.pronamespace = 'refresher'::regnamespace AND p.proname = 'attached_' || a.name || '_told'
LEFT JOIN pg_trigger AS t ON t.tgfoid = p.oid AND t.tgrelid = to_regclass(:table)
WHERE t.oid IS NOT NULL OR a.tables[1] = :table OR a.mapping->>'table' = :told
ORDER BY t.oid IS NULL, a.tables[1] IS DISTINCT FROM :table
LIMIT 1
