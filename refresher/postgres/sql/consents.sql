-- How many consents have ended or end soon, of accounts that are worked or paused.
SELECT count(*) FILTER (WHERE refresh_token_expires_at <= now()) AS ended,
       count(*) FILTER (WHERE refresh_token_expires_at > now()
                          AND refresh_token_expires_at <= now() + interval '3 days')
           AS within_3_days,
       count(*) FILTER (WHERE refresh_token_expires_at > now()
                          AND refresh_token_expires_at <= now() + interval '14 days')
           AS within_14_days,
       count(*) FILTER (WHERE refresh_token_expires_at > now()
                          AND refresh_token_expires_at <= now() + interval '30 days')
           AS within_30_days,
       min(refresh_token_expires_at) FILTER (WHERE refresh_token_expires_at > now()) AS next_end
FROM refresher.accounts
WHERE state IN ('active', 'paused')
