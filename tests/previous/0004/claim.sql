-- Revision 0004, refresher/postgres/claims.py
WITH pace AS MATERIALIZED (
    SELECT app_step,
           greatest(:step::interval, app_step) AS step,
           CASE WHEN app_step > '0' THEN least(:horizon::interval, :app_horizon::interval)
                ELSE :horizon::interval END AS horizon
    FROM (
        -- One row, also for a planner that has never seen the table analyzed.
        SELECT greatest(:app_step::interval, CASE
                   WHEN app.rate IS NOT NULL AND app.rate_lowered_at > now() - interval '1 hour'
                   THEN interval '1 second' * 63.1 / (app.rate * power(1 + 0.1, (
                                                          extract(epoch FROM now()) - extract(epoch FROM app.rate_lowered_at))::float8 / 60)) END) AS app_step FROM refresher.app LIMIT 1
    ) AS app
),
picked AS MATERIALIZED (
    -- FOR UPDATE, as it conflicts with the key-share lock of an insert into videos that has not
    -- been committed: that account waits for it rather than miss its wake-up.
    SELECT open_id, wake_at, next_slot_at, read_to,
           CASE videos WHEN 0 THEN 100 ELSE least(videos, :rows_read) END AS videos,
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
                       OR coalesce(a.access_token_expires_at <= now(), false)) AND ((token_failures > 0 AND token_due_at > now())
                                  OR coalesce(token_request_until > now(), false)))
    ORDER BY wake_at
    LIMIT :accounts
    FOR UPDATE SKIP LOCKED
),
locked AS MATERIALIZED (
    -- Whether the statement sees all that was inserted before the locks, and none is to come.
    SELECT refresher.is_latest(pg_current_snapshot()) AS last
    FROM (SELECT count(*) FROM picked) AS locked_first
),
affordable AS (
    -- By the counts of their last release: a huge account, or many small ones. A token that is to
    -- be refreshed comes first: nothing is asked with the old one.
    SELECT *,
           renewable AND (due OR dead) AS token_due,
           CASE WHEN share < 1
                THEN greatest(pace.step, interval '0.10200000000000001 seconds') / share
                ELSE pace.step END AS own_step
    FROM (
        SELECT *, sum(videos) OVER (ORDER BY wake_at, open_id ROWS UNBOUNDED PRECEDING) AS read
        FROM picked
    ) AS reading, pace
    WHERE read - videos < :rows_read AND read <= 1500
),
asked AS MATERIALIZED (
    -- LATERAL: each account's rows are read once, by the primary key, whatever the planner thinks
    -- of the number of accounts. Due videos first, then what fills their chunks up; a video whose
    -- last answer brought no cover is no top-up: it might spoil the others' request. One that was
    -- refused alone is asked for alone, when nothing else is due or when it has waited for an hour.
    SELECT p.*, own.*, videos_read = :rows_read AS part_only
    FROM affordable AS p
    CROSS JOIN LATERAL (
        SELECT array_agg(video_id) AS video_ids,
               array_agg(expires_at) AS expires_ats,
               array_agg(misses) AS misses,
               array_agg(missing) AS missing,
               array_agg(ctid) AS ctids,
               count(*) AS videos_read,
               max(video_id) AS last_read,
               (count(*) FILTER (WHERE turn = 0))::integer AS starved,
               (count(*) FILTER (WHERE turn = 1))::integer AS due_videos,
               (count(*) FILTER (WHERE turn = 2))::integer AS alone,
               (count(*) FILTER (WHERE turn = 3))::integer AS top_ups
        FROM (
            SELECT video_id, expires_at, misses, missing, ctid,
                   CASE WHEN due_at > now() THEN CASE WHEN misses = 0 THEN 3 END
                        WHEN NOT refused THEN 1
                        WHEN due_at < now() - interval '1 hour' THEN 0
                        ELSE 2 END AS turn
            FROM (
                SELECT ctid, video_id, due_at, misses,
                       CASE WHEN cover_image_url IS NOT NULL
                            THEN date_part('epoch', cover_expires_at) END AS expires_at,
                       missing_since IS NOT NULL AS missing,
                       refusal IS NOT NULL AS refused
                FROM refresher.videos
                WHERE open_id = p.open_id AND video_id > p.read_to AND NOT p.token_due
                ORDER BY video_id
                -- Also keeps the URLs, which only say whether there is one, out of the sort.
                LIMIT :rows_read
            ) AS part
            ORDER BY turn, due_at, video_id COLLATE "C"
        ) AS ordered
    ) AS own
),
chosen AS (
    SELECT *, CASE
        WHEN starved > 0 OR due_videos = 0 THEN least(1, starved + alone)
        WHEN own_step > '0' THEN least(due_videos, 20 * greatest(1, floor(
            extract(epoch FROM horizon) / extract(epoch FROM own_step)))::integer)
        ELSE due_videos END AS chosen
    FROM asked
),
sized AS (
    SELECT *, ceil(chosen / 20.0)::integer AS chunks,
           CASE WHEN starved > 0 OR due_videos = 0 THEN chosen
                ELSE least(20 * ceil(chosen / 20.0)::integer, due_videos + top_ups) END AS filled
    FROM chosen
),
app AS MATERIALIZED (
    SELECT next_slot_at FROM refresher.app, pace WHERE app_step > '0' FOR UPDATE OF app
),
start AS MATERIALIZED (
    -- After the reading, however long it took.
    SELECT clock_timestamp() AS at,
           (SELECT CASE WHEN next_slot_at >= clock_timestamp() - interval '0.4 seconds' THEN next_slot_at
                        ELSE clock_timestamp() END FROM app) AS app_at
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
    FROM sized
),
granted AS MATERIALIZED (
    SELECT counted.*,
           least(counted.chunks, budget.chunks - chunks_before) AS granted_chunks,
           -- More is due in what was read than is asked for now.
           starved + due_videos + alone > least(chosen, 20 * (budget.chunks - chunks_before))
               AS cut_off,
           greatest(
               CASE WHEN next_slot_at >= clock_timestamp() - interval '0.4 seconds' THEN next_slot_at
                    ELSE clock_timestamp() END, start.app_at + chunks_before * app_step
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
        END,
        read_to = CASE WHEN g.token_due OR g.cut_off THEN a.read_to
                       WHEN g.part_only THEN g.last_read
                       ELSE '' END
    FROM granted AS g
    WHERE a.open_id = g.open_id
    RETURNING a.open_id, a.access_token, a.lease_epoch, a.lease_expires_at, a.failures,
              a.refresh_token, a.tokens_generation, a.token_standing, a.token_failures
)
SELECT l.*, g.first_slot, now() AS now, g.renewable, g.dead, g.token_due,
       g.cut_off OR g.part_only AS unfinished,
       CASE WHEN locked.last AND g.read_to = '' AND NOT (g.part_only OR g.token_due)
            THEN g.videos_read END AS all_videos,
       extract(epoch FROM g.own_step)::float8 AS step_seconds,
       g.video_ids[:least(g.chosen, 20 * g.granted_chunks)]
       || g.video_ids[greatest(g.due_videos, g.chosen) + g.alone + 1:
                g.alone + least(g.filled, 20 * g.granted_chunks)] AS video_ids,
       least(g.chosen, 20 * g.granted_chunks) AS due_videos,
       g.expires_ats[:least(g.chosen, 20 * g.granted_chunks)]
       || g.expires_ats[greatest(g.due_videos, g.chosen) + g.alone + 1:
                g.alone + least(g.filled, 20 * g.granted_chunks)] AS expires_ats,
       g.misses[:least(g.chosen, 20 * g.granted_chunks)]
       || g.misses[greatest(g.due_videos, g.chosen) + g.alone + 1:
                g.alone + least(g.filled, 20 * g.granted_chunks)] AS misses,
       g.missing[:least(g.chosen, 20 * g.granted_chunks)]
       || g.missing[greatest(g.due_videos, g.chosen) + g.alone + 1:
                g.alone + least(g.filled, 20 * g.granted_chunks)] AS missing,
       array_to_string(g.ctids[:least(g.chosen, 20 * g.granted_chunks)]
                       || g.ctids[greatest(g.due_videos, g.chosen) + g.alone + 1:
                                g.alone + least(g.filled, 20 * g.granted_chunks)], ' ') AS ctids
FROM leased AS l JOIN granted AS g USING (open_id), locked
