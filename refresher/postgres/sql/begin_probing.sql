-- The first probe of all. No row if there was one.
INSERT INTO refresher.probing (next_at)
VALUES (now() + :every::interval)
ON CONFLICT DO NOTHING
RETURNING true
