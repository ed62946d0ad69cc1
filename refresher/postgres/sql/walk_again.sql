-- All accounts are looked at again, without waiting between the steps.
UPDATE refresher.attachments SET walked_to = '', walked_at = NULL WHERE name = :attachment
