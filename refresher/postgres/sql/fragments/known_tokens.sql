-- The staged tokens beside the stored ones. Sealed text is new each time, so a token that is stored
-- already would look like a new one: that would revive a parked account and forget the expiry.
SELECT s.open_id, s.access_token, s.refresh_token,
       a.access_token AS known_access_token, a.refresh_token AS known_refresh_token,
       coalesce(u.fingerprints, '{}') AS used_up
FROM staged_accounts AS s JOIN refresher.accounts AS a USING (open_id)
                          LEFT JOIN refresher.used_tokens AS u USING (open_id)
ORDER BY open_id
