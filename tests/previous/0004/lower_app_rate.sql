-- Revision 0004, refresher/postgres/claims.py
UPDATE refresher.app
SET rate = greatest(10, CASE
        WHEN app.rate_lowered_at > now() - interval '1 hour' THEN 0.7 * app.rate * power(1 + 0.1, (
                                                                            extract(epoch FROM now()) - extract(epoch FROM app.rate_lowered_at))::float8 / 60)
        ELSE 0.9 * coalesce(:rate::float8 * replicas.number, 600) END),
    rate_lowered_at = now(),
    next_slot_at = greatest(app.next_slot_at, now() + :pause::interval)
FROM (
    SELECT greatest(1, count(DISTINCT lease_owner)) AS number
    FROM refresher.accounts
    WHERE lease_expires_at > now()
) AS replicas
WHERE app.rate_lowered_at < now() - :window::interval
RETURNING app.rate
