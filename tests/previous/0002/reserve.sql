-- Revision 0002, refresher/postgres/claims.py
WITH pace AS MATERIALIZED (
    SELECT app_step, greatest(:step::interval, app_step) AS step
    FROM (
        SELECT greatest(:app_step::interval, CASE
                    WHEN app.rate IS NOT NULL AND app.rate_lowered_at > now() - interval '1 hour'
                    THEN interval '1 second' * 62.7
                    / (app.rate * power(1 + 0.1, (
                    extract(epoch FROM now()) - extract(epoch FROM app.rate_lowered_at))::float8 / 60)) END) AS app_step
        FROM refresher.app
    ) AS app
),
own AS MATERIALIZED (
    SELECT open_id, next_slot_at, least(1, a.rate_share + 0.1 * (
                    extract(epoch FROM now()) - extract(epoch FROM a.rate_lowered_at)) / 60) AS share
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
slot AS MATERIALIZED (
    SELECT open_id, CASE WHEN share < 1
                     THEN greatest(pace.step, interval '0.10200000000000001 seconds') / share
                     ELSE pace.step END AS own_step,
           greatest(next_slot_at, clock_timestamp(), (SELECT next_slot_at FROM app)) AS at
    FROM own, pace
),
spent AS (
    UPDATE refresher.app
    -- Not the account's own slot: those before it are for others.
    SET next_slot_at = greatest(app.next_slot_at, clock_timestamp()) + app_step
    FROM slot, pace
    WHERE app_step > '0'
)
UPDATE refresher.accounts AS a
SET next_slot_at = slot.at + slot.own_step
FROM slot
WHERE a.open_id = slot.open_id
RETURNING slot.at
