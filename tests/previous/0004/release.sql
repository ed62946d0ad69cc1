-- Revision 0004, refresher/postgres/claims.py
WITH given AS MATERIALIZED (
    SELECT *
    FROM unnest(:open_ids::text[], :lease_epochs::bigint[], :generations::bigint[], :failures::integer[], :retry_seconds::float8[], :pause_seconds::float8[],
                :park_states::text[], :park_reasons::text[], :answered::boolean[], :refused::boolean[], :token_retry_seconds::float8[],
                :requests::integer[], :unfinished::boolean[], :passed_over::boolean[])
         AS r (open_id, lease_epoch, generation, failures, retry_seconds, pause_seconds,
               park_state, park_reason, answered, refused, token_retry_seconds, requests,
               unfinished, passed_over)
),
fresh AS MATERIALIZED (
    -- One video speaks for those that were written alike with it: it shows what the database has,
    -- also after a failover that has lost a write-back.
    SELECT s.open_id, sum(s.videos)::integer AS videos, min(v.cover_expires_at) AS valid_until,
           min(v.due_at) AS earliest_due_at
    FROM unnest(:sample_open_ids::text[], :sample_video_ids::text[], :sample_videos::integer[]) AS s (open_id, video_id, videos)
    LEFT JOIN LATERAL (
        SELECT cover_expires_at, due_at
        FROM refresher.videos
        WHERE open_id = s.open_id AND video_id = s.video_id
          AND cover_image_url IS NOT NULL AND cover_expires_at > now() AND due_at > now()
        LIMIT 1
    ) AS v ON true
    GROUP BY s.open_id
    HAVING bool_and(v.due_at IS NOT NULL)
),
held AS MATERIALIZED (
    SELECT r.*,
           a.tokens_generation = r.generation AS same_tokens,
           a.token_due_at AS was_token_due_at,
           r.park_state IS NOT NULL AND a.state = 'active'
               AND a.tokens_generation = r.generation AS parked,
           -- A large account is counted when all of it has been read, not with every part.
           r.unfinished AND a.videos > :rows_read AS uncounted,
           a.videos, a.valid, a.expired, a.unreachable, a.valid_until,
           least(a.earliest_due_at, now()) AS earliest_due_at
    FROM given AS r
    JOIN refresher.accounts AS a
      ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_owner IS NOT NULL
    ORDER BY r.open_id
    FOR UPDATE OF a SKIP LOCKED
),
counted AS MATERIALIZED (
    SELECT open_id, h.same_tokens, h.parked, h.park_state, h.park_reason, h.failures, h.requests,
           h.retry_seconds, h.pause_seconds, h.token_retry_seconds, h.refused, h.answered,
           h.passed_over, c.*,
           CASE WHEN NOT h.same_tokens THEN h.was_token_due_at
                WHEN h.refused THEN now()
                WHEN h.token_retry_seconds > 0
                THEN now() + h.token_retry_seconds * interval '1 second'
                ELSE h.was_token_due_at END AS token_due_at
    FROM held AS h
    LEFT JOIN fresh AS f USING (open_id)
    CROSS JOIN LATERAL (
        SELECT videos, valid, expired, unreachable, valid_until, earliest_due_at
        FROM refresher.count_covers(h.open_id) WHERE NOT h.uncounted AND f.videos IS NULL
        UNION ALL
        SELECT f.videos, f.videos, 0, 0, f.valid_until, f.earliest_due_at
        WHERE NOT h.uncounted AND f.videos IS NOT NULL
        UNION ALL
        SELECT h.videos, h.valid, h.expired, h.unreachable, h.valid_until, h.earliest_due_at
        WHERE h.uncounted
    ) AS c
),
released AS (
    UPDATE refresher.accounts AS a
    SET lease_owner = NULL,
        lease_expires_at = NULL,
        failures = c.failures,
        next_slot_at = CASE
            WHEN c.pause_seconds > 0
            THEN greatest(a.next_slot_at, now() + c.pause_seconds * interval '1 second')
            ELSE a.next_slot_at END,
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
        -- Where the part that was read had nothing due, the next one is read before all else: in a
        -- backlog each part would wait for everybody's turn.
        wake_at = CASE WHEN c.passed_over THEN '-infinity' ELSE greatest(
            least(
                CASE WHEN a.wake_at < a.lease_expires_at THEN a.wake_at END,
                c.earliest_due_at,
                CASE WHEN :managed AND a.refresh_token IS NOT NULL
                     THEN greatest(c.token_due_at, a.token_request_until) ELSE 'infinity' END
            ),
            now() + greatest(c.retry_seconds, c.pause_seconds) * interval '1 second'
        ) END,
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
