-- Locks the attachment until the transaction ends; no row if another replica is at it.
SELECT name FROM refresher.attachments WHERE name = :attachment FOR UPDATE SKIP LOCKED
