-- A cover changes only to a later expiry.
(w.cover_image_url IS NULL
 OR v.cover_image_url IS NULL
 OR v.cover_expires_at IS NULL
 OR v.cover_expires_at < w.cover_expires_at)
