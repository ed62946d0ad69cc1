-- A risk is said when it begins, and again after a while. A row: say it now, or it is over.
UPDATE refresher.app
SET risk_said_at = CASE WHEN :at_risk::boolean THEN now() END
WHERE CASE WHEN :at_risk::boolean
           THEN risk_said_at IS NULL OR risk_said_at <= now() - :again_after::interval
           ELSE risk_said_at IS NOT NULL END
RETURNING :at_risk::boolean
