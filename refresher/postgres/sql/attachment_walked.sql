-- The next step goes on from here; without accounts the walk is complete, and begins anew. Not if it
-- was begun anew meanwhile.
UPDATE refresher.attachments
SET walked_to = coalesce(:walked_to, ''),
    walked_at = CASE WHEN :walked_to::text IS NULL THEN now() ELSE walked_at END
WHERE name = :attachment AND walk = :walk AND walked_to = :walked_from
