-- One replica makes a forecast for all. No row for the others until the next one is due.
UPDATE refresher.app
SET forecast_at = now()
WHERE forecast_at IS NULL OR forecast_at <= now() - :every::interval
RETURNING true
