-- One replica fetches a cover for all. No row for the others until the next one is due.
INSERT INTO refresher.probing AS p (next_at)
VALUES (now() + :every::interval)
ON CONFLICT (only_row) DO UPDATE
SET next_at = excluded.next_at
WHERE p.next_at <= now()
   -- From a time when turns were rarer: what probes that came early put off is less.
   OR p.next_at > now() + 8 * :every::interval
RETURNING true
