-- A slot more for an account under lease, after those it has, and one of the app's where it is
-- limited.
WITH pace AS MATERIALIZED (
    SELECT app_step, greatest(:step::interval, app_step) AS step
    FROM (
        SELECT {{ app_step }} AS app_step FROM refresher.app LIMIT 1
    ) AS app
),
own AS MATERIALIZED (
    SELECT open_id, next_slot_at, {{ rate_share_now }} AS share
    FROM refresher.accounts AS a
    WHERE open_id = :open_id AND lease_epoch = :lease_epoch AND lease_expires_at > now()
    -- Not as strong as a claim: results of the same account are being written under a key share.
    FOR NO KEY UPDATE SKIP LOCKED
),
app AS MATERIALIZED (
    SELECT next_slot_at FROM refresher.app, pace
    WHERE app_step > '0' AND (SELECT count(*) FROM own) > 0
    FOR UPDATE OF app
),
start AS MATERIALIZED (
    SELECT clock_timestamp() + :ahead::interval AS at
    FROM (SELECT count(*) FROM app) AS locked_first
),
slot AS MATERIALIZED (
    SELECT open_id, {{ own_step }} AS own_step,
           greatest({{ slot_from_now slot="next_slot_at" now="start.at" }},
                    (SELECT {{ slot_from_now slot="next_slot_at" now="start.at" }} FROM app)) AS at
    FROM own, pace, start
),
spent AS (
    UPDATE refresher.app
    -- Not the account's own slot: those before it are for others.
    SET next_slot_at = {{ slot_from_now slot="app.next_slot_at" now="start.at" }} + app_step
    FROM slot, pace, start
    WHERE app_step > '0'
)
UPDATE refresher.accounts AS a
SET next_slot_at = slot.at + slot.own_step
FROM slot
WHERE a.open_id = slot.open_id
RETURNING slot.at
