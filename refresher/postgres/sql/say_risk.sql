-- A risk is said when it begins, and again after a while. A row: say it now, or it is over. NULL as
-- :risk: there is none.
UPDATE refresher.app
SET risk_said_at = CASE WHEN :risk::jsonb IS NOT NULL THEN now() END,
    risk = :risk
WHERE CASE WHEN :risk::jsonb IS NOT NULL
           THEN risk_said_at IS NULL OR risk_said_at <= now() - :again_after::interval
           ELSE risk_said_at IS NOT NULL END
RETURNING risk IS NOT NULL
