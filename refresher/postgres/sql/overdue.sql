-- What holds up accounts that have something due, how many, and for how long at most.
SELECT {{ held_up_by }} AS reason, count(*) AS accounts, min({{ due_since }}) AS first_since
FROM refresher.accounts AS a, refresher.app
WHERE {{ is_overdue }}
GROUP BY 1
ORDER BY accounts DESC, reason
