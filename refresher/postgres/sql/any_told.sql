-- Whether more of what was told can be applied now: not what was refused and waits.
SELECT EXISTS (
    SELECT FROM refresher.changed_rows WHERE attachment = :attachment AND not_before <= now()
)
