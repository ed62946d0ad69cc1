-- Paused, parked or isolated.
(state <> 'active' OR isolated_since IS NOT NULL)
