-- The first free slot. An account in work is claimed again a little after its last slot. So slots
-- that have just passed still count: without them each claim would lose a twentieth of the quota.
-- An idle account begins now: slots of long ago would be missed before we can send.
CASE WHEN {{ slot }} >= {{ now }} - interval '{{ past_seconds }} seconds'
     THEN {{ slot }} ELSE {{ now }} END
