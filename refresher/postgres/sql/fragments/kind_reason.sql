-- Why. The reason of an isolation names a request: its code alone says what is common to several.
CASE WHEN isolated_since IS NOT NULL AND state = 'active' THEN split_part(isolated_reason, ',', 1)
     WHEN state <> 'active' THEN state_reason END
