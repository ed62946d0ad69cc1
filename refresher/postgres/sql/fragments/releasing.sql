-- Releases leases, and stores what was learnt under them.
--
-- An account whose row somebody has locked is skipped: it is tried again, and its lease runs out in
-- any case. So is an account with another epoch: the lease is no longer ours. What we learnt about
-- a token does not count if the token has been replaced meanwhile.


-- ------------------------ 1. What is to be released ------------------------

WITH releases AS MATERIALIZED (
    -- A row: an account, and what its claim has learnt.
    SELECT r.*
    FROM unnest(:open_ids::text[], :lease_epochs::bigint[], :generations::bigint[],
                :failures::integer[], :retry_seconds::float8[], :pause_seconds::float8[],
                :park_states::text[], :park_reasons::text[], :answered::boolean[],
                :refused::boolean[], :token_retry_seconds::float8[], :requests::integer[],
                :unfinished::boolean[], :passed_over::boolean[], :quota_spent::boolean[],
                :isolated_reasons::text[], :failure_codes::text[],
                :failure_http_statuses::smallint[], :failure_log_ids::text[])
         AS r (open_id, lease_epoch, generation, failures, retry_seconds, pause_seconds,
               park_state, park_reason, answered, refused, token_retry_seconds, requests,
               unfinished, passed_over, quota_spent, isolated_reason, failure_code,
               failure_http_status, failure_log_id), (
        {{ patience }}
    ) AS patience
),
fresh_counts AS MATERIALIZED (
    -- A row: an account whose videos have all just been written, counted from samples. A sample is
    -- one video of those that were written alike. It shows what the database really has: a failover
    -- may have lost a write-back.
    SELECT s.open_id, sum(s.videos)::integer AS videos, min(v.cover_expires_at) AS valid_until,
           min(v.due_at) AS earliest_due_at
    FROM unnest(:sample_open_ids::text[], :sample_video_ids::text[], :sample_videos::integer[])
         AS s (open_id, video_id, videos)
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
leased_accounts AS MATERIALIZED (
    -- A row: an account whose lease is still ours, now locked, and what is stored of it.
    SELECT r.*,
           a.tokens_generation = r.generation AS same_tokens,
           a.token_due_at AS was_token_due_at,
           -- New tokens from somebody else have ended an isolation. A pair that this claim stored
           -- has not, and neither has a new seal, though both raise the generation.
           a.tokens_generation = r.generation OR a.isolated_since IS NOT NULL AS isolation_holds,
           a.failures AS stored_failures,
           a.next_slot_at, a.isolated_since, a.rate_share, a.rate_lowered_at,
           a.refresh_token, a.token_request_until,
           -- A wake_at before the end of the lease means that somebody inserted videos meanwhile.
           CASE WHEN a.wake_at < a.lease_expires_at THEN a.wake_at END AS woken_at,
           r.park_state IS NOT NULL AND a.state = 'active'
               AND a.tokens_generation = r.generation AS parked,
           -- A large account is not counted with every part, but when all parts have been read.
           r.unfinished AND a.videos > :rows_read AS uncounted,
           a.videos, a.valid, a.expired, a.uncovered, a.missing, a.unreachable, a.valid_until,
           least(a.earliest_due_at, now()) AS earliest_due_at
    FROM releases AS r
    JOIN refresher.accounts AS a
      ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_owner IS NOT NULL
    ORDER BY r.open_id
    FOR UPDATE OF a SKIP LOCKED
),
outcomes AS MATERIALIZED (
    -- A row: an account, what to store for it, and its counts. These come from the samples, from
    -- counting its videos, or are those of before.
    SELECT a.*, now() AS now, date_trunc('hour', now()) AS hour,
           CASE
               WHEN a.pause_seconds > 0
               THEN greatest(a.next_slot_at, now() + a.pause_seconds * interval '1 second')
               -- It waits so long even if new videos wake it.
               WHEN a.isolated_reason IS NOT NULL
               THEN greatest(a.next_slot_at, now() + a.retry_seconds * interval '1 second')
               ELSE a.next_slot_at END AS free_at,
           CASE WHEN a.isolated_reason IS NOT NULL THEN coalesce(a.isolated_since, now()) END
               AS isolated_from,
           -- A day's quota tells nothing about the limit of a minute.
           CASE WHEN a.pause_seconds > 0 AND NOT a.quota_spent
                THEN greatest({{ least_rate_share }}, {{ rate_decrease }} * {{ rate_share_now }})
                ELSE a.rate_share END AS share_from_now,
           CASE WHEN a.pause_seconds > 0 AND NOT a.quota_spent THEN now()
                ELSE a.rate_lowered_at END AS lowered_at,
           -- Of an account that was woken meanwhile we keep that. If nothing was due in the part that
           -- was read, the next part is read before all other accounts. Otherwise, in a backlog, each
           -- part would wait for all of them.
           CASE WHEN a.passed_over THEN '-infinity' ELSE greatest(
               least(a.woken_at, a.earliest_due_at, {{ token_wake_at due="a.token_due_at" }}),
               now() + greatest(a.retry_seconds, a.pause_seconds) * interval '1 second'
           ) END AS wake_at
    FROM (
        SELECT open_id, l.same_tokens, l.parked, l.park_state, l.park_reason, l.requests,
               CASE WHEN l.isolation_holds OR l.isolated_reason IS NULL THEN l.failures
                    ELSE l.stored_failures END AS failures,
               CASE WHEN l.isolation_holds OR l.isolated_reason IS NULL THEN l.retry_seconds ELSE 0 END
                   AS retry_seconds,
               l.pause_seconds, l.token_retry_seconds, l.refused, l.answered,
               l.next_slot_at, l.isolated_since, l.rate_share, l.rate_lowered_at, l.refresh_token,
               l.token_request_until, l.woken_at,
               l.passed_over, l.quota_spent, l.failure_code, l.failure_http_status, l.failure_log_id,
               CASE WHEN l.isolation_holds AND NOT l.parked THEN l.isolated_reason END
                   AS isolated_reason,
               c.*,
               CASE WHEN NOT l.same_tokens THEN l.was_token_due_at
                    WHEN l.refused THEN now()
                    WHEN l.token_retry_seconds > 0
                    THEN now() + l.token_retry_seconds * interval '1 second'
                    ELSE l.was_token_due_at END AS token_due_at
        FROM leased_accounts AS l
        LEFT JOIN fresh_counts AS f USING (open_id)
        CROSS JOIN LATERAL (
            SELECT videos, valid, expired, uncovered, missing, unreachable, valid_until, earliest_due_at
            FROM ({{ counted_videos account="l.open_id" at_most="NULL" }}) AS counted
            WHERE NOT l.uncounted AND f.videos IS NULL
            UNION ALL
            SELECT f.videos, f.videos, 0, 0, 0, 0, f.valid_until, f.earliest_due_at
            WHERE NOT l.uncounted AND f.videos IS NOT NULL
            UNION ALL
            SELECT l.videos, l.valid, l.expired, l.uncovered, l.missing, l.unreachable, l.valid_until,
                   l.earliest_due_at
            WHERE l.uncounted
        ) AS c
    ) AS a
),


-- -------------------------- 2. Release the leases --------------------------

released_accounts AS (
    -- A row: an account without a lease, as it is stored from now on.
    UPDATE refresher.accounts AS a
    SET lease_owner = NULL,
        lease_expires_at = NULL,
        failures = c.failures,
        next_slot_at = c.free_at,
        isolated_since = c.isolated_from,
        isolated_reason = c.isolated_reason,
        last_failure_at = CASE WHEN c.failure_code IS NULL THEN a.last_failure_at ELSE c.now END,
        last_failure_code = coalesce(c.failure_code, a.last_failure_code),
        last_failure_http_status = CASE WHEN c.failure_code IS NULL THEN a.last_failure_http_status
                                        ELSE c.failure_http_status END,
        last_failure_log_id = CASE WHEN c.failure_code IS NULL THEN a.last_failure_log_id
                                   ELSE c.failure_log_id END,
        rate_share = c.share_from_now,
        rate_lowered_at = c.lowered_at,
        token_due_at = c.token_due_at,
        token_standing = CASE WHEN NOT c.same_tokens THEN a.token_standing
                              WHEN c.refused THEN 'refused'
                              WHEN c.answered AND a.token_standing = 'renewed' THEN 'trusted'
                              ELSE a.token_standing END,
        -- Above 0 it marks a wait. One for other app credentials comes without a failure, as nothing
        -- was sent: it must not make the back-off longer that follows.
        token_failures = CASE
            WHEN NOT c.same_tokens OR c.token_retry_seconds <= 0 THEN a.token_failures
            WHEN c.failure_code IS NULL THEN greatest(a.token_failures, 1)
            ELSE a.token_failures + 1 END,
        wake_at = c.wake_at,
        requests_since = c.hour,
        requests = c.requests
            + CASE WHEN a.requests_since = c.hour THEN a.requests ELSE 0 END,
        videos = c.videos,
        valid = c.valid,
        expired = c.expired,
        uncovered = c.uncovered,
        missing = c.missing,
        unreachable = c.unreachable,
        valid_until = c.valid_until,
        earliest_due_at = c.earliest_due_at,
        state = CASE WHEN c.parked THEN c.park_state ELSE a.state END,
        state_reason = CASE WHEN c.parked THEN c.park_reason ELSE a.state_reason END,
        state_since = CASE WHEN c.parked THEN c.now ELSE a.state_since END
    FROM outcomes AS c
    WHERE a.open_id = c.open_id
    RETURNING a.open_id, c.parked, a.isolated_since IS NOT NULL AS isolated,
              greatest(a.wake_at, a.next_slot_at) AS wake_at
)
-- In seconds, as PostgreSQL before 17 cannot subtract infinity.
SELECT open_id, parked, isolated,
       (extract(epoch FROM wake_at) - extract(epoch FROM now()))::float8 AS wake_in_seconds
FROM (
    SELECT * FROM released_accounts
    UNION ALL
    -- Released before, by a statement that was committed without our hearing of it.
    SELECT a.open_id, r.park_state IS NOT NULL AND a.state = r.park_state,
           a.isolated_since IS NOT NULL, greatest(a.wake_at, a.next_slot_at)
    FROM releases AS r
    JOIN refresher.accounts AS a ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_owner IS NULL
) AS done
