-- Scans all videos. Only `once` sends it, which is about to ask for them anyway.
SELECT count(*)
FROM refresher.videos AS v JOIN refresher.accounts AS a USING (open_id)
WHERE v.due_at <= :before AND a.state <> 'paused'
