-- A webhook was delivered, whoever has it now.
DELETE FROM refresher.outbox WHERE id = :id
