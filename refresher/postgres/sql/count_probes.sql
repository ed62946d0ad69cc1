-- What became of the covers that were fetched within a day. One row.
SELECT count(*) FILTER (WHERE outcome = 'served') AS served,
       count(*) FILTER (WHERE outcome = 'refused') AS refused,
       count(*) FILTER (WHERE outcome = 'unknown') AS unknown
FROM refresher.probes
WHERE probed_at > now() - interval '1 day'
