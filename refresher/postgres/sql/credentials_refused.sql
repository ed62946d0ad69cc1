UPDATE refresher.app
SET refused_client = :credentials, client_refused_at = now()
