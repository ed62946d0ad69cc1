-- Whether covers are carried to another attached table.
SELECT EXISTS (
    SELECT FROM refresher.attachments WHERE carries AND NOT detaching AND name <> :name
)
