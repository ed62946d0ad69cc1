-- The attachment of a table, by its name or as the operator named it.
SELECT attachment, name, kind, mapping, tables, walked_at, detaching
FROM refresher.attachments
WHERE name = :name OR mapping->>'table' = :told
