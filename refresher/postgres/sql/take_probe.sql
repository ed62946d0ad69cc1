-- One replica fetches a cover for all. No row for the others until the next one is due, nor before the
-- first one, for which begin_probing is asked.
UPDATE refresher.probing
SET next_at = now() + :every::interval
WHERE next_at <= now()
   -- From a time when turns were rarer: what probes that came early put off is less.
   OR next_at > now() + 8 * :every::interval
RETURNING true
