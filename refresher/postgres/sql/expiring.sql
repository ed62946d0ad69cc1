-- How many covers of active accounts expire when. Each account's covers are counted at the expiry of
-- the first one: those that were refreshed together expire together. Bucket 0: that time has
-- passed, and the account is not counted again yet. Bucket n begins with the n-th bound.
SELECT width_bucket((extract(epoch FROM valid_until) - extract(epoch FROM now()))::float8,
                    :bounds::float8[]) AS bucket,
       sum(valid) AS covers
FROM refresher.accounts
WHERE state = 'active' AND valid > 0
GROUP BY 1
ORDER BY 1
