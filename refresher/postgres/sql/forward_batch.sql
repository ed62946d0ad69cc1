-- Whose covers are brought forward next: of one host, some accounts. Not at once after its lead has
-- grown: answers on their way are still stored by the old one. No account: this host is done.
WITH walk AS MATERIALIZED (
    SELECT host, grown_seconds, forward_to
    FROM refresher.cover_hosts
    WHERE forward_to IS NOT NULL AND grown_at <= now() - :settling::interval
    ORDER BY host
    LIMIT 1
)
SELECT walk.host, walk.grown_seconds, walk.forward_to, ARRAY(
           SELECT open_id
           FROM (
               SELECT open_id, sum(videos) OVER (ORDER BY open_id) - videos AS read_before
               FROM (
                   SELECT a.open_id,
                          CASE a.videos WHEN 0 THEN {{ assumed_videos }} ELSE a.videos END AS videos
                   FROM refresher.accounts AS a
                   WHERE a.open_id > walk.forward_to
                   ORDER BY a.open_id
                   LIMIT :accounts
               ) AS next
           ) AS reading
           WHERE read_before < :videos_read
           ORDER BY open_id
       ) AS open_ids
FROM walk
