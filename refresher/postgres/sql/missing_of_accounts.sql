-- The accounts with the most videos that TikTok has left out, and how many there are.
SELECT open_id, missing, videos, count(*) OVER () AS accounts
FROM refresher.accounts
WHERE missing > 0
ORDER BY missing DESC, open_id
LIMIT :rows
