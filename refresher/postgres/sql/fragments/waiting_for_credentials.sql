-- Accounts that wait for better app credentials. We know them by the time: after a refusal a
-- replica sends no token request for so long, and every account that it meets meanwhile waits as
-- long from then on. Another back-off that ends at the same time is ended, too, which takes one
-- request.
SELECT a.open_id, a.lease_expires_at > now() AS leased, now() AS now
FROM refresher.accounts AS a, refresher.app
WHERE app.refused_client <> :credentials
  AND a.state = 'active'
  AND a.token_failures > 0
  AND a.token_due_at > now()
  AND a.token_due_at
      <= app.client_refused_at + interval '{{ credentials_waited_for_seconds }} seconds'
