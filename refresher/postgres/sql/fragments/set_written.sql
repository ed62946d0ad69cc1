-- The reserve is dropped with the first cover: see docs/decisions/0001.
SET cover_image_url = coalesce(w.cover_image_url, v.cover_image_url),
    cover_expires_at = coalesce(w.cover_expires_at, v.cover_expires_at),
    refreshed_at = CASE WHEN w.cover_image_url IS NULL THEN v.refreshed_at ELSE w.written_at END,
    missing_since = CASE WHEN w.missing THEN coalesce(v.missing_since, w.written_at) END,
    gone_at = CASE WHEN w.gone THEN coalesce(v.gone_at, w.written_at) END,
    due_at = w.due_at,
    misses = w.misses,
    refusal = w.refusal,
    reserve = CASE WHEN w.cover_image_url IS NULL THEN v.reserve END
