-- The first slot to be had. An account that is worked again and again is claimed a little after its
-- last slot: without those that have just passed a twentieth of its quota would be lost between two
-- claims. One that was idle begins now: in the past its chunks would be late before they are sent.
CASE WHEN {{ slot }} >= {{ now }} - interval '{{ past_seconds }} seconds'
     THEN {{ slot }} ELSE {{ now }} END
