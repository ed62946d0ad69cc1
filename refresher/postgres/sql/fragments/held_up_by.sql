-- Why an account whose videos are due has not been asked for yet.
CASE WHEN app.paused_since IS NOT NULL THEN 'everything_paused'
     WHEN a.lease_expires_at > now() THEN 'worked'
     WHEN a.isolated_since IS NOT NULL THEN 'isolated'
     WHEN {{ waits_for_token }} THEN 'token'
     WHEN {{ is_throttled horizon=":horizon::interval" }} THEN 'pause'
     WHEN a.wake_at > now() AND a.failures > 0 THEN 'back_off'
     WHEN a.wake_at > now() THEN 'asleep'
     WHEN a.next_slot_at > now() THEN 'slot'
     ELSE 'turn' END
