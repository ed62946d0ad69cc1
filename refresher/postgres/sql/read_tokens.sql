-- A statement of its own, not a transaction: so a machine that vanishes leaves no row locked. With
-- a lock, as a pooler that balances reads would send a plain SELECT to a standby. By the standby's
-- older row a new pair would look overtaken, and be thrown away.
SELECT access_token, refresh_token, tokens_generation,
       token_request_until IS NOT NULL AS interrupted
FROM refresher.accounts
WHERE open_id = :open_id
FOR KEY SHARE
