-- Stores what a replica saw answered, beside what others told. Replicas that have stopped are
-- dropped.
WITH told AS MATERIALIZED (
    SELECT (
               SELECT coalesce(jsonb_object_agg(key, value), '{}')
               FROM jsonb_each(app.answers)
               WHERE (value ->> 'at')::float8
                     > extract(epoch FROM now()) - {{ remembered_seconds }}
           ) || jsonb_build_object(:replica::text, jsonb_build_object(
               'at', extract(epoch FROM now())::float8, 'answers', :answers::text)) AS answers
    FROM refresher.app
    FOR NO KEY UPDATE
),
stored AS (
    UPDATE refresher.app
    SET answers = told.answers
    FROM told
    RETURNING app.rate, app.rate_lowered_at
)
SELECT coalesce(rate IS NOT NULL
                AND rate_lowered_at > now() - interval '{{ app_rate_kept_seconds }} seconds',
                false)
FROM stored
