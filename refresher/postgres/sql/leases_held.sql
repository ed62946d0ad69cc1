-- How many accounts each replica works. For roles that may not read `refresher.replicas`, too.
{{ leases_held }}
ORDER BY replica
