-- Only a later expiry changes a cover. A reserve is dropped with the first one: see the migration.
(w.cover_image_url IS NULL
 OR v.cover_image_url IS NULL
 OR v.cover_expires_at IS NULL
 OR v.cover_expires_at < w.cover_expires_at)
