DELETE FROM refresher.attachments WHERE name = :name
