CREATE TEMPORARY TABLE staged_videos (
    line bigint, open_id text, video_id text, cover_image_url text,
    cover_expires_at timestamptz, due_at timestamptz
) ON COMMIT DROP
