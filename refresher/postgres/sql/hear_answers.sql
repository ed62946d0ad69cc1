-- What all replicas told, how many other replicas work and told nothing, and what of the app's row
-- it is based on.
SELECT app.rate_lowered_at::text AS as_of, {{ app_rate_now }} AS rate,
       ARRAY(SELECT extract(epoch FROM now())::float8 - (value ->> 'at')::float8
             FROM jsonb_each(app.answers) ORDER BY key) AS ages,
       ARRAY(SELECT value ->> 'answers' FROM jsonb_each(app.answers) ORDER BY key) AS answers,
       (SELECT count(DISTINCT lease_owner)
        FROM refresher.accounts
        WHERE lease_expires_at > now()
          AND lease_owner NOT IN (
              SELECT key FROM jsonb_each(app.answers)
              WHERE (value ->> 'at')::float8
                  > extract(epoch FROM now()) - {{ told_within_seconds }})) AS unheard
FROM refresher.app
