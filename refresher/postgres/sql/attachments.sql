-- A row: an attached table.
SELECT name, carries, walked_at FROM refresher.attachments WHERE NOT detaching ORDER BY name
