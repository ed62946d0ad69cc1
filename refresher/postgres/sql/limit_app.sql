-- The rate grows from the time when requests are sent again. No row if another replica was faster:
-- it may have heard more.
UPDATE refresher.app
SET rate = :rate::float8,
    rate_lowered_at = now() + :pause::interval,
    next_slot_at = greatest(app.next_slot_at, now() + :pause::interval)
WHERE app.rate_lowered_at::text = :as_of
RETURNING true
