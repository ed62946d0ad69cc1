-- The probes that nobody has told of, if it is time to, or at once if `now`: one replica tells of
-- each. No row: it is not yet time.
WITH turn AS MATERIALIZED (
    SELECT told_at FROM refresher.probing
    WHERE :at_once::boolean OR told_at <= now() - :every::interval
    FOR UPDATE
),
told AS (
    UPDATE refresher.probing SET told_at = now() FROM turn
)
SELECT p.host, p.left_seconds, p.outcome
FROM turn JOIN refresher.probes AS p ON p.probed_at > turn.told_at AND p.probed_at <= now()
