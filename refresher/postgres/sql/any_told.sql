-- Whether more of what was told can be applied now: not what was refused and waits.
SELECT EXISTS (
    SELECT 1 FROM refresher.changed_rows WHERE attachment = :attachment AND not_before <= now()
)
