-- All accounts are looked at again, without waiting between the steps.
UPDATE refresher.attachments
SET walk = walk + 1, walked_to = '', walked_at = NULL
WHERE name = :attachment
