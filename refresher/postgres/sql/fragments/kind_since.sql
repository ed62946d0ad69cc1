-- Since when; NULL for an account that is simply active.
CASE WHEN state = 'active' THEN isolated_since ELSE state_since END
