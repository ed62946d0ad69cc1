-- Revision 0002, refresher/postgres/claims.py
WITH pace AS MATERIALIZED (
    SELECT app_step,
           greatest(:step::interval, app_step) AS step,
           CASE WHEN app_step > '0' THEN least(:horizon::interval, :app_horizon::interval)
                ELSE :horizon::interval END AS horizon
    FROM (
        SELECT greatest(:app_step::interval, CASE
                    WHEN app.rate IS NOT NULL AND app.rate_lowered_at > now() - interval '1 hour'
                    THEN interval '1 second' * 62.7
                    / (app.rate * power(1 + 0.1, (
                    extract(epoch FROM now()) - extract(epoch FROM app.rate_lowered_at))::float8 / 60)) END) AS app_step
        FROM refresher.app
    ) AS app
),
picked AS MATERIALIZED (
    -- FOR UPDATE, as it conflicts with the key-share lock of an insert into videos that has not
    -- been committed: that account waits for it rather than miss its wake-up.
    SELECT open_id, wake_at, next_slot_at, greatest(videos, 1) AS videos,
           least(1, a.rate_share + 0.1 * (
                    extract(epoch FROM now()) - extract(epoch FROM a.rate_lowered_at)) / 60) AS share,
           :managed AND refresh_token IS NOT NULL AS renewable,
           (a.access_token IS NULL OR a.token_standing = 'refused'
                 OR coalesce(a.access_token_expires_at <= now(), false)) AS dead,
           greatest(token_due_at, token_request_until) <= now() AS due
    FROM refresher.accounts AS a
    WHERE state = 'active'
      AND wake_at <= now()
      AND (lease_expires_at IS NULL OR lease_expires_at <= now())
      AND next_slot_at <= now() + (SELECT horizon FROM pace)
      -- New videos do not cut short the wait for a token that has to come before them: a back-off,
      -- or somebody else's request whose outcome may still be stored.
      AND NOT (:managed AND (a.access_token IS NULL OR a.token_standing = 'refused'
                 OR coalesce(a.access_token_expires_at <= now(), false))
               AND ((token_failures > 0 AND token_due_at > now())
                                  OR coalesce(token_request_until > now(), false)))
    ORDER BY wake_at
    LIMIT :chunk_budget
    FOR UPDATE SKIP LOCKED
),
affordable AS (
    -- By the counts of their last release: a few huge accounts, or many small ones. A token that is
    -- to be refreshed comes first: nothing is asked with the old one.
    SELECT *,
           renewable AND (due OR dead) AS token_due,
           CASE WHEN share < 1
                     THEN greatest(pace.step, interval '0.10200000000000001 seconds') / share
                     ELSE pace.step END AS own_step
    FROM (
        SELECT *, sum(videos) OVER (ORDER BY wake_at, open_id ROWS UNBOUNDED PRECEDING) AS read
        FROM picked
    ) AS reading, pace
    WHERE read - videos < :rows_read
),
asked AS MATERIALIZED (
    -- LATERAL with a window: each account's rows are read once, by the primary key, whatever the
    -- planner thinks of the number of accounts. Due videos first, topped up to full chunks; a
    -- video whose last answer brought no cover is no top-up: it might spoil the others' request.
    -- One that was refused alone is asked for alone, when nothing else is due or after an hour.
    SELECT p.*, own.*
    FROM affordable AS p
    CROSS JOIN LATERAL (
        SELECT array_agg(video_id) AS video_ids,
               array_agg(due_at) AS due_ats,
               array_agg(expires_at) AS expires_ats,
               array_agg(misses) AS video_misses,
               array_agg(missing) AS video_missing,
               ceil(count(*) / 20.0)::integer AS chunks
        FROM (
            SELECT video_id, due_at, misses,
                   CASE WHEN cover_image_url IS NOT NULL THEN cover_expires_at END AS expires_at,
                   missing_since IS NOT NULL AS missing,
                   refusal IS NOT NULL AS alone,
                   row_number() OVER (ORDER BY refusal IS NOT NULL, due_at, video_id) AS place,
                   count(*) FILTER (WHERE due_at <= now() AND refusal IS NULL) OVER () AS due,
                   count(*) FILTER (WHERE refusal IS NULL) OVER () AS together,
                   -- Its turn comes, however much else is due.
                   bool_or(refusal IS NOT NULL AND due_at < now() - interval '1 hour')
                       OVER () AS starved
            FROM refresher.videos
            WHERE open_id = p.open_id
              AND (due_at <= now() OR misses = 0)
              AND NOT p.token_due
            ORDER BY place
        ) AS ordered
        WHERE CASE
            WHEN due = 0 OR starved THEN place = together + 1
            ELSE NOT alone AND place <= 20 * least(ceil(due / 20.0), CASE
                WHEN p.own_step > '0' THEN greatest(1, floor(
                    extract(epoch FROM p.horizon) / extract(epoch FROM p.own_step)))
                ELSE :chunk_budget END)
        END
    ) AS own
),
app AS MATERIALIZED (
    SELECT next_slot_at FROM refresher.app, pace WHERE app_step > '0' FOR UPDATE OF app
),
start AS MATERIALIZED (
    -- After the reading, however long it took: a slot must not lie in the past.
    SELECT clock_timestamp() AS at,
           (SELECT greatest(next_slot_at, clock_timestamp()) FROM app) AS app_at
    FROM (SELECT count(*) FROM asked) AS read_first, (SELECT count(*) FROM app) AS locked_first
),
budget AS (
    SELECT least(:chunk_budget, ceil(
        extract(epoch FROM at + greatest(horizon, app_step) - app_at)
        / nullif(extract(epoch FROM app_step), 0)
    ))::integer AS chunks
    FROM start, pace
),
counted AS (
    SELECT *, coalesce(
        sum(chunks) OVER (
            ORDER BY wake_at, open_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ),
        0
    )::integer AS chunks_before
    FROM asked
),
granted AS MATERIALIZED (
    SELECT counted.*,
           least(counted.chunks, budget.chunks - chunks_before) AS granted_chunks,
           greatest(
               next_slot_at, start.at, start.app_at + chunks_before * app_step
           ) AS first_slot
    FROM counted, budget, start
    WHERE chunks_before < budget.chunks
),
spent AS (
    UPDATE refresher.app
    SET next_slot_at = start.app_at
        + (SELECT coalesce(sum(granted_chunks), 0) FROM granted) * (SELECT app_step FROM pace)
    FROM start
    WHERE start.app_at IS NOT NULL AND EXISTS (SELECT FROM granted WHERE granted_chunks > 0)
),
leased AS (
    UPDATE refresher.accounts AS a
    SET lease_owner = :replica,
        lease_epoch = a.lease_epoch + 1,
        lease_expires_at = now() + :lease::interval,
        -- So a crashed replica's account is due again when its lease has run out.
        wake_at = now() + :lease::interval,
        next_slot_at = CASE
            WHEN g.granted_chunks = 0 THEN a.next_slot_at
            ELSE g.first_slot + g.granted_chunks * g.own_step
        END
    FROM granted AS g
    WHERE a.open_id = g.open_id
    RETURNING a.open_id, a.access_token, a.lease_epoch, a.lease_expires_at, a.failures,
              a.refresh_token, a.tokens_generation, a.token_standing, a.token_failures
)
SELECT l.*, g.first_slot, now() AS now, g.renewable, g.dead, g.token_due,
       extract(epoch FROM g.own_step)::float8 AS step_seconds,
       g.video_ids[:20 * g.granted_chunks] AS video_ids,
       g.due_ats[:20 * g.granted_chunks] AS due_ats,
       g.expires_ats[:20 * g.granted_chunks] AS expires_ats,
       g.video_misses[:20 * g.granted_chunks] AS misses,
       g.video_missing[:20 * g.granted_chunks] AS missing
FROM leased AS l JOIN granted AS g USING (open_id)
