-- The next step goes on from here; without accounts the walk is complete, and begins anew. Not if it
-- was begun anew meanwhile.
UPDATE refresher.attachments AS a
SET walked_to = coalesce(:walked_to, ''),
    walked_at = CASE WHEN :walked_to::text IS NULL THEN moment.now ELSE a.walked_at END
-- Not a part of the UPDATE, in which Citus takes no such function.
FROM (SELECT now() AS now OFFSET 0) AS moment
WHERE name = :attachment AND walk = :walk AND walked_to = :walked_from
