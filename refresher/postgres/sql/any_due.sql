-- Whether any such video is left. Where none is, this reads all, as one scan.
SELECT EXISTS (
    SELECT 1
    FROM refresher.videos AS v JOIN refresher.accounts AS a USING (open_id)
    WHERE v.due_at <= :before AND a.state <> 'paused'
)
