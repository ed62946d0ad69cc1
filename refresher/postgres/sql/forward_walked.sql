-- These accounts are done; NULL: all are. Unless the lead has grown again meanwhile.
UPDATE refresher.cover_hosts
SET forward_to = :done_to::text
WHERE host = :host AND forward_to = :forward_to AND grown_seconds = :grown_seconds
