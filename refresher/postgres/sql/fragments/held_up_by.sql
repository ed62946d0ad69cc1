-- Why an account whose videos are due has not been asked for yet.
CASE WHEN app.paused_since IS NOT NULL THEN 'everything_paused'
     WHEN a.lease_expires_at > now() THEN 'worked'
     WHEN a.isolated_since IS NOT NULL THEN 'isolated'
     WHEN {{ token_is_dead }} AND ((a.token_failures > 0 AND a.token_due_at > now())
                                  OR a.token_request_until > now()) THEN 'token'
     -- A pause keeps it asleep as long as it may send nothing. The end of a back-off is no slot.
     WHEN a.wake_at > now() AND a.next_slot_at > now() THEN 'pause'
     WHEN a.wake_at > now() AND a.failures > 0 THEN 'back_off'
     WHEN a.wake_at > now() THEN 'asleep'
     WHEN a.next_slot_at > now() THEN 'slot'
     ELSE 'turn' END
