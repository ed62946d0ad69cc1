-- One more slot for an account under lease, after those it has; one of the app's, too, where the
-- app is limited. No row: the lease is lost, or the row locked.
WITH pace AS MATERIALIZED (
    SELECT app_step, greatest(:step::interval, app_step) AS step
    FROM (
        SELECT {{ app_step }} AS app_step FROM refresher.app LIMIT 1
    ) AS app
),
leased_account AS MATERIALIZED (
    SELECT open_id, next_slot_at, {{ rate_share_now }} AS rate_share
    FROM refresher.accounts AS a
    WHERE open_id = :open_id AND lease_epoch = :lease_epoch AND lease_expires_at > now()
    -- Weaker than a claim's: results of the same account are being written under a key share.
    FOR NO KEY UPDATE SKIP LOCKED
),
app AS MATERIALIZED (
    -- The app's row, locked; none where the app is not limited.
    SELECT next_slot_at FROM refresher.app, pace
    WHERE app_step > '0' AND (SELECT count(*) FROM leased_account) > 0
    FOR UPDATE OF app
),
start AS MATERIALIZED (
    -- One row: when slots begin, later by as much as the last claims came late.
    SELECT clock_timestamp() + :ahead::interval AS at
    FROM (SELECT count(*) FROM app) AS locked_first
),
slot AS MATERIALIZED (
    -- The account with its slot, the later one of its own and the app's.
    SELECT open_id, {{ own_step }} AS own_step,
           greatest({{ slot_from_now slot="next_slot_at" now="start.at" }},
                    (SELECT {{ slot_from_now slot="next_slot_at" now="start.at" }} FROM app)) AS at
    FROM leased_account, pace, start
),
spent_app_slot AS (
    UPDATE refresher.app
    -- Counted from the app's slot, not from the account's later one: those between are for others.
    SET next_slot_at = {{ slot_from_now slot="app.next_slot_at" now="start.at" }} + app_step
    FROM slot, pace, start
    WHERE app_step > '0'
)
UPDATE refresher.accounts AS a
SET next_slot_at = slot.at + slot.own_step
FROM slot
WHERE a.open_id = slot.open_id
RETURNING slot.at
