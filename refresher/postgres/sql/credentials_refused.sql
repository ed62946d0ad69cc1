-- Notes for all replicas that TikTok refused these app credentials.
UPDATE refresher.app
SET refused_client = :credentials, client_refused_at = now()
