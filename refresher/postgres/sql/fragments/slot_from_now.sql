-- The first free slot from now on. An account in work is claimed again a little after its last
-- slot: slots that have just passed still count, or a twentieth of its quota would be lost between
-- two claims. An idle account begins now: in the past its chunks would be late before they are
-- sent.
CASE WHEN {{ slot }} >= {{ now }} - interval '{{ past_seconds }} seconds'
     THEN {{ slot }} ELSE {{ now }} END
