-- A cover that counts as valid, of a video that the last answer had.
cover_image_url IS NOT NULL AND cover_expires_at > now() AND cover_expires_at < 'infinity'
AND refreshed_at < cover_expires_at AND missing_since IS NULL AND gone_at IS NULL
