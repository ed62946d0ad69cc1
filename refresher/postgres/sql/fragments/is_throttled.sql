-- Paused after a 429, or until a day's quota begins anew: its next slot lies behind the slots that a
-- claim may reserve. Without a failure these were reserved under a slow limit, and the wait of an
-- isolated account lies there, too.
(a.failures > 0 AND a.isolated_since IS NULL AND a.next_slot_at > now() + {{ horizon }})
