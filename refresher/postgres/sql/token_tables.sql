-- A row: an attached table of tokens.
SELECT mapping FROM refresher.attachments WHERE kind = 'tokens' AND NOT detaching ORDER BY name
