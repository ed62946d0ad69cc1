-- The chunks of all active accounts, and the account with the most videos.
SELECT (
        SELECT coalesce(sum((videos + {{ chunk_size }} - 1) / {{ chunk_size }}), 0)::bigint
        FROM refresher.accounts
        WHERE state = 'active'
    ) AS chunks,
    open_id AS largest, videos AS most_videos
FROM refresher.accounts
WHERE state = 'active'
ORDER BY videos DESC
LIMIT 1
