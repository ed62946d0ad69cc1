-- A row: an attached table.
SELECT name, kind, carries, walked_at FROM refresher.attachments WHERE NOT detaching ORDER BY name
