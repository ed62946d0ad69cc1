-- What the next claim would find of accounts, condition by condition and by the claim's own, and
-- one video of each where it is asked for. It locks nothing, changes nothing and reads no token.
WITH pace AS MATERIALIZED (
    {{ pace }}
),
judged AS MATERIALIZED (
    -- A row: an account, and which of the claim's conditions hold.
    SELECT *, {{ own_step }} AS own_step
    FROM (
        SELECT a.open_id, a.wake_at, a.isolated_since IS NOT NULL AS isolated,
               {{ is_due }} AS awake,
               {{ is_free }} AS free,
               {{ slot_is_near horizon="(SELECT horizon FROM pace)" }} AS slot_near,
               {{ is_throttled horizon="(SELECT horizon FROM pace)" }} AS throttled,
               {{ waits_for_token }} AS waits_for_token,
               {{ token_is_dead }} AS token_dead,
               {{ claimable who="{{ is_due }}" horizon="(SELECT horizon FROM pace)" }} AS claimable,
               {{ rate_share_now }} AS rate_share
        FROM refresher.accounts AS a
        WHERE a.open_id = ANY (:open_ids::text[])
    ) AS accounts, pace
)
SELECT now() AS now,
       a.open_id, a.state, a.state_reason, a.state_since,
       a.refresh_token_expires_at, a.scope,
       a.access_token IS NOT NULL AS has_access_token,
       a.refresh_token IS NOT NULL AS has_refresh_token,
       a.access_token_expires_at, a.token_standing, a.token_failures, a.token_open_id,
       nullif(a.token_due_at, 'infinity') AS token_due_at, a.token_request_until,
       a.lease_owner, a.lease_expires_at,
       a.failures, a.isolated_since, a.isolated_reason,
       nullif(a.next_slot_at, '-infinity') AS next_slot_at,
       CASE WHEN isfinite(a.wake_at) THEN a.wake_at END AS wake_at,
       nullif(a.rate_lowered_at, '-infinity') AS rate_lowered_at,
       nullif(a.requests_since, '-infinity') AS requests_since, a.requests,
       a.videos, a.valid, a.expired, a.uncovered, a.missing, a.unreachable,
       nullif(a.earliest_due_at, 'infinity') AS earliest_due_at,
       a.last_failure_at, a.last_failure_code, a.last_failure_http_status, a.last_failure_log_id,
       j.awake, j.free, j.slot_near, j.throttled, j.waits_for_token, j.token_dead, j.claimable,
       j.rate_share::float8 AS rate_share,
       extract(epoch FROM j.own_step)::float8 AS step_seconds,
       queue.accounts_ahead, queue.requests_ahead,
       app.paused_since AS app_paused_since,
       extract(epoch FROM pace.app_step)::float8 AS app_step_seconds,
       pace.app_step > :app_step::interval AS app_found,
       {{ app_rate_found }} AS app_rate_found,
       nullif(app.rate_lowered_at, '-infinity') AS app_rate_lowered_at,
       nullif(app.next_slot_at, '-infinity') AS app_next_slot_at,
       {{ credentials_refused_at }} AS app_client_refused_at,
       CASE WHEN pace.app_step > '0'
            THEN {{ app_room now="now()" slot="app.first_slot" }} > 0
            ELSE true END AS app_has_room,
       v.*,
       CASE WHEN v.video_turn = {{ turn_due }} THEN (
           -- Those of the account that are asked for before this one.
           SELECT count(*)
           FROM refresher.videos AS o
           WHERE o.open_id = a.open_id AND o.refusal IS NULL
             AND (o.due_at, o.video_id COLLATE "C") < (v.video_due_at, v.video_id COLLATE "C")
       ) ELSE 0 END AS video_ahead
FROM judged AS j
JOIN refresher.accounts AS a USING (open_id)
CROSS JOIN pace
CROSS JOIN (
    SELECT *, {{ slot_from_now slot="next_slot_at" now="now()" }} AS first_slot FROM refresher.app
) AS app
CROSS JOIN LATERAL (
    -- Those that a claim would take before this one, and what they need at most: how many of their
    -- videos are due is not stored.
    SELECT count(*) AS accounts_ahead,
           coalesce(sum(greatest(1, (a.videos + {{ chunk_size }} - 1) / {{ chunk_size }})), 0)::bigint
               AS requests_ahead
    FROM refresher.accounts AS a
    WHERE j.claimable
      AND {{ claimable who="wake_at < j.wake_at" horizon="(SELECT horizon FROM pace)" }}
) AS queue
LEFT JOIN LATERAL (
    SELECT video_id, cover_image_url AS video_cover_image_url,
           nullif(cover_expires_at, 'infinity') AS video_cover_expires_at, refreshed_at AS video_refreshed_at,
           missing_since AS video_missing_since, gone_at AS video_gone_at,
           nullif(due_at, 'infinity') AS video_due_at, misses AS video_misses, refusal AS video_refusal,
           {{ turn isolated="j.isolated" }} AS video_turn
    FROM (
        SELECT *, refusal IS NOT NULL AS refused
        FROM refresher.videos
        WHERE open_id = a.open_id AND video_id = :video_id::text
    ) AS video
) AS v ON true
ORDER BY a.open_id
