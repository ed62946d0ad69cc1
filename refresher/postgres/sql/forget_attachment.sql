DELETE FROM refresher.attachments WHERE name = :name AND detaching
