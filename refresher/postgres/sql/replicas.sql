-- The replicas that said within a day that they run, and those of earlier versions, which only hold leases.
SELECT coalesce(r.replica, l.replica) AS replica, r.version, r.started_at, r.seen_at, r.progress_at,
       coalesce(l.leases, 0) AS leases
FROM (SELECT * FROM refresher.replicas WHERE seen_at >= now() - interval '1 day') AS r
FULL JOIN (
    {{ leases_held }}
) AS l USING (replica)
ORDER BY 1
