-- A webhook was delivered, whoever has it now.
DELETE FROM refresher.outbox WHERE webhook_id = :webhook_id::text::uuid
