-- A row: a table that still holds something of an account, how many rows, and whether the role may
-- delete them. A table that gets a column of open_ids belongs here and, if it does not follow
-- refresher.accounts, in forget_account.
SELECT holder, rows, has_table_privilege('refresher.' || holder, 'DELETE') AS may_delete
FROM (
    VALUES
        ('accounts', (SELECT count(*) FROM refresher.accounts WHERE open_id = :open_id)),
        ('videos', (SELECT count(*) FROM refresher.videos WHERE open_id = :open_id)),
        ('used_tokens', (SELECT count(*) FROM refresher.used_tokens WHERE open_id = :open_id)),
        ('attached_tokens',
         (SELECT count(*) FROM refresher.attached_tokens WHERE open_id = :open_id)),
        ('changed_rows',
         (SELECT count(*) FROM refresher.changed_rows WHERE :open_id = ANY (open_ids))),
        ('changed_covers',
         (SELECT count(*) FROM refresher.changed_covers WHERE :open_id = ANY (open_ids))),
        ('probes', (SELECT count(*) FROM refresher.probes WHERE open_id = :open_id)),
        ('outbox', (SELECT count(*) FROM refresher.outbox WHERE open_id = :open_id))
) AS held (holder, rows)
WHERE rows > 0
