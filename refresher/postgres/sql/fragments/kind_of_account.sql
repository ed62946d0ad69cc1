-- The state as operators see it: an isolated account is active.
CASE WHEN isolated_since IS NOT NULL AND state = 'active' THEN 'isolated' ELSE state END
