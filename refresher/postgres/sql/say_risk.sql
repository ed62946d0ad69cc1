-- A risk is said when it begins, and again after a while. A row: say it now, or it is over. NULL as
-- :risk: there is none.
WITH said AS MATERIALIZED (
    SELECT CASE WHEN :risk::jsonb IS NOT NULL THEN now() END AS said_at
    FROM refresher.app
    WHERE CASE WHEN :risk::jsonb IS NOT NULL
               THEN risk_said_at IS NULL OR risk_said_at <= now() - :again_after::interval
               ELSE risk_said_at IS NOT NULL END
    FOR NO KEY UPDATE
)
UPDATE refresher.app
SET risk_said_at = said.said_at, risk = :risk
FROM said
RETURNING risk IS NOT NULL
