-- Reserves one more slot for an account under lease, and one of the app where the app is limited.
-- No row if the lease is lost or the row is locked.
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
    -- A weaker lock than a claim's: write-backs of the same account hold a key-share lock.
    FOR NO KEY UPDATE SKIP LOCKED
),
app AS MATERIALIZED (
    -- The app's row, locked. No row if the app has no limit.
    SELECT next_slot_at FROM refresher.app, pace
    WHERE app_step > '0' AND (SELECT count(*) FROM leased_account) > 0
    FOR UPDATE OF app
),
start AS MATERIALIZED (
    -- One row: when slots begin. `ahead` is how late the last claims came. Of the app it is counted
    -- from the app's slot, not from the account's: those between the two are for others.
    SELECT at, (SELECT {{ slot_from_now slot="next_slot_at" now="at" }} FROM app) AS app_at
    FROM (
        SELECT clock_timestamp() + :ahead::interval AS at
        FROM (SELECT count(*) FROM app) AS locked_first
    ) AS begun
),
slot AS MATERIALIZED (
    -- One row: the account with its slot, which is the later one of its own and the app's.
    SELECT open_id, at, at + own_step AS next_slot_at, app_at + app_step AS next_app_slot_at
    FROM (
        SELECT open_id, app_at, app_step, {{ own_step }} AS own_step,
               greatest({{ slot_from_now slot="next_slot_at" now="start.at" }}, app_at) AS at
        FROM leased_account, pace, start
    ) AS found
),
spent_app_slot AS (
    UPDATE refresher.app
    SET next_slot_at = slot.next_app_slot_at
    FROM slot
    WHERE slot.next_app_slot_at IS NOT NULL
),
spent_slot AS (
    UPDATE refresher.accounts AS a
    SET next_slot_at = slot.next_slot_at
    FROM slot
    WHERE a.open_id = slot.open_id
    RETURNING slot.at
)
SELECT at FROM spent_slot
