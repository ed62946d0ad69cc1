-- Stores what a replica saw answered, beside what others told. Replicas that have stopped are
-- dropped.
UPDATE refresher.app
SET answers = (
        SELECT coalesce(jsonb_object_agg(key, value), '{}')
        FROM jsonb_each(app.answers)
        WHERE (value ->> 'at')::float8 > extract(epoch FROM now()) - {{ remembered_seconds }}
    ) || jsonb_build_object(:replica::text, jsonb_build_object(
        'at', extract(epoch FROM now())::float8, 'answers', :answers::text))
RETURNING coalesce(app.rate IS NOT NULL
                   AND app.rate_lowered_at > now() - interval '{{ app_rate_kept_seconds }} seconds',
                   false)
