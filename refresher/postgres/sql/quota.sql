-- Requests of this hour.
SELECT coalesce(sum(requests), 0) AS requests, coalesce(max(requests), 0) AS busiest,
       date_trunc('hour', now()) AS since
FROM refresher.accounts
WHERE requests_since = date_trunc('hour', now())
