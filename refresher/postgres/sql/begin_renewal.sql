-- Notes a token request, and is committed before the request is sent. Only under the lease and with
-- the tokens of the claim: no row if the lease is lost or there is a new authorization.
WITH leased_account AS MATERIALIZED (
    SELECT open_id, now() + :unknown::interval AS unknown_until
    FROM refresher.accounts
    WHERE open_id = :open_id
      AND lease_epoch = :lease_epoch
      AND lease_expires_at > now()
      AND tokens_generation = :generation
    FOR NO KEY UPDATE SKIP LOCKED
),
noted AS (
    UPDATE refresher.accounts AS a
    SET token_request_until = l.unknown_until
    FROM leased_account AS l
    WHERE a.open_id = l.open_id
    RETURNING a.open_id
)
SELECT open_id FROM noted
