-- One replica fetches a cover for all. No row for the others until the next one is due.
UPDATE refresher.probing
SET next_at = now() + :every::interval
WHERE next_at <= now()
RETURNING true
