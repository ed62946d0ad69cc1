-- Revision 0002, refresher/postgres/claims.py
WITH given AS MATERIALIZED (
    SELECT *
    FROM unnest(:open_ids::text[], :lease_epochs::bigint[], :generations::bigint[], :failures::integer[], :retry_seconds::float8[], :pause_seconds::float8[],
                :park_states::text[], :park_reasons::text[], :answered::boolean[], :refused::boolean[], :token_retry_seconds::float8[],
                :requests::integer[])
         AS r (open_id, lease_epoch, generation, failures, retry_seconds, pause_seconds,
               park_state, park_reason, answered, refused, token_retry_seconds, requests)
),
held AS MATERIALIZED (
    SELECT r.*,
           a.tokens_generation = r.generation AS same_tokens,
           a.token_due_at AS was_token_due_at,
           r.park_state IS NOT NULL AND a.state = 'active'
               AND a.tokens_generation = r.generation AS parked
    FROM given AS r
    JOIN refresher.accounts AS a
      ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_owner IS NOT NULL
    ORDER BY r.open_id
    FOR UPDATE OF a SKIP LOCKED
),
counted AS MATERIALIZED (
    SELECT h.*, c.*,
           CASE WHEN NOT h.same_tokens THEN h.was_token_due_at
                WHEN h.refused THEN now()
                WHEN h.token_retry_seconds > 0
                THEN now() + h.token_retry_seconds * interval '1 second'
                ELSE h.was_token_due_at END AS token_due_at
    FROM held AS h
    CROSS JOIN LATERAL refresher.count_covers(h.open_id) AS c
),
released AS (
    UPDATE refresher.accounts AS a
    SET lease_owner = NULL,
        lease_expires_at = NULL,
        failures = c.failures,
        next_slot_at = greatest(a.next_slot_at, now() + c.pause_seconds * interval '1 second'),
        rate_share = CASE WHEN c.pause_seconds > 0
                          THEN greatest(0.1, 0.7 * least(1, a.rate_share + 0.1 * (
                    extract(epoch FROM now()) - extract(epoch FROM a.rate_lowered_at)) / 60))
                          ELSE a.rate_share END,
        rate_lowered_at = CASE WHEN c.pause_seconds > 0 THEN now() ELSE a.rate_lowered_at END,
        token_due_at = c.token_due_at,
        token_standing = CASE WHEN NOT c.same_tokens THEN a.token_standing
                              WHEN c.refused THEN 'refused'
                              WHEN c.answered AND a.token_standing = 'renewed' THEN 'trusted'
                              ELSE a.token_standing END,
        token_failures = a.token_failures
            + (c.same_tokens AND c.token_retry_seconds > 0)::integer,
        -- Lower than the end of the lease: somebody inserted videos meanwhile; that wish is kept.
        wake_at = greatest(
            least(
                CASE WHEN a.wake_at < a.lease_expires_at THEN a.wake_at END,
                c.earliest_due_at,
                CASE WHEN :managed AND a.refresh_token IS NOT NULL
                     THEN greatest(c.token_due_at, a.token_request_until) ELSE 'infinity' END
            ),
            now() + greatest(c.retry_seconds, c.pause_seconds) * interval '1 second'
        ),
        requests_since = date_trunc('hour', now()),
        requests = c.requests
            + CASE WHEN a.requests_since = date_trunc('hour', now()) THEN a.requests ELSE 0 END,
        videos = c.videos,
        valid = c.valid,
        expired = c.expired,
        unreachable = c.unreachable,
        valid_until = c.valid_until,
        earliest_due_at = c.earliest_due_at,
        state = CASE WHEN c.parked THEN c.park_state ELSE a.state END,
        state_reason = CASE WHEN c.parked THEN c.park_reason ELSE a.state_reason END,
        state_since = CASE WHEN c.parked THEN now() ELSE a.state_since END
    FROM counted AS c
    WHERE a.open_id = c.open_id
    RETURNING a.open_id, c.parked, greatest(a.wake_at, a.next_slot_at) AS wake_at
)
-- Not the difference of the two: before PostgreSQL 17 infinity has none.
SELECT open_id, parked,
       (extract(epoch FROM wake_at) - extract(epoch FROM now()))::float8 AS wake_in_seconds
FROM (
    SELECT * FROM released
    UNION ALL
    -- Given back already, by a statement whose commit was not heard of.
    SELECT a.open_id, r.park_state IS NOT NULL AND a.state = r.park_state,
           greatest(a.wake_at, a.next_slot_at)
    FROM given AS r
    JOIN refresher.accounts AS a ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_owner IS NULL
) AS done
