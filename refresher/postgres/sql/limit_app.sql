-- The rate grows from the time when requests are sent again. No row if another replica was faster:
-- it may have heard more.
WITH heard AS MATERIALIZED (
    SELECT greatest(next_slot_at, now() + :pause::interval) AS next_slot_at,
           now() + :pause::interval AS paused_until
    FROM refresher.app
    WHERE rate_lowered_at::text = :as_of
    FOR NO KEY UPDATE
)
UPDATE refresher.app
SET rate = :rate::float8,
    rate_lowered_at = heard.paused_until,
    next_slot_at = heard.next_slot_at
FROM heard
RETURNING true
