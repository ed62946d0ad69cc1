-- Attachments that stand in the way of a new one: of its name, but of another table; or of the same
-- table, under another name that it had before. As the operator named their tables.
SELECT coalesce(a.mapping->>'table', a.name) AS told
FROM refresher.attachments AS a
LEFT JOIN pg_proc AS p
     ON p.pronamespace = 'refresher'::regnamespace AND p.proname = 'attached_' || a.name || '_told'
LEFT JOIN pg_trigger AS t ON t.tgfoid = p.oid
WHERE CASE WHEN a.name = :name
           THEN a.tables[1] <> :table OR t.tgrelid <> to_regclass(:table)
           ELSE t.tgrelid = to_regclass(:table) END
LIMIT 1
