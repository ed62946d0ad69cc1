-- The accounts by kind: worked ('active'), with a token dead for good, isolated, or of another state.
-- With them the consents that end soon, and those whose last token request failed. Reads the accounts
-- alone.
SELECT kind,
       count(*) AS accounts,
       -- An account that was never counted has as many videos as a claim assumes.
       sum(CASE WHEN videos = 0 AND wake_at < 'infinity' THEN {{ assumed_videos }}
                ELSE videos END) AS videos,
       sum(valid) AS valid,
       -- What ends in no year of a calendar, such as at infinity, does not die.
       extract(epoch FROM min(valid_until) FILTER (
           WHERE valid > 0
             AND valid_until BETWEEN now() - interval '1 century' AND now() + interval '1 century'
       ))::float8 AS first_death_at,
       count(*) FILTER (WHERE token_failures > 0) AS without_token,
       coalesce(sum(valid) FILTER (WHERE token_failures > 0), 0) AS covers_without_token,
       count(*) FILTER (WHERE consent_ends) AS consents,
       extract(epoch FROM min(refresh_token_expires_at) FILTER (WHERE consent_ends))::float8
           AS first_consent_ends_at,
       coalesce(sum(valid) FILTER (WHERE consent_ends), 0) AS covers_of_consents
FROM (
    SELECT *, CASE WHEN NOT {{ is_troubled }} AND {{ token_dead_for_good }} THEN 'dead_token'
                   ELSE {{ kind_of_account }} END AS kind,
              state = 'active' AND refresh_token_expires_at > now()
              AND refresh_token_expires_at <= now() + :consents_within::interval AS consent_ends
    FROM refresher.accounts AS a
    OFFSET 0
) AS accounts
GROUP BY kind
