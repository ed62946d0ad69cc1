-- The accounts with something due whose covers expire first.
SELECT a.open_id, a.videos, a.valid, a.valid_until, {{ held_up_by }} AS reason
FROM refresher.accounts AS a, refresher.app
WHERE {{ is_overdue }} AND a.valid > 0
ORDER BY a.valid_until, a.open_id
LIMIT :rows
