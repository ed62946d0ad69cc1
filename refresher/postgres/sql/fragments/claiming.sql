-- One round trip. Times are decided by the database's clock; the chunks are counted out of a budget
-- so that whatever the replica cannot take on stays claimable for others.
WITH pace AS MATERIALIZED (
    SELECT app_step,
           greatest(:step::interval, app_step) AS step,
           CASE WHEN app_step > '0' THEN least(:horizon::interval, :app_horizon::interval)
                ELSE :horizon::interval END AS horizon
    FROM (
        -- One row, also for a planner that has never seen the table analyzed.
        SELECT {{ app_step }} AS app_step FROM refresher.app LIMIT 1
    ) AS app
),
picked AS MATERIALIZED (
    -- FOR UPDATE, as it conflicts with the key-share lock of an insert into videos that has not
    -- been committed: that account waits for it rather than miss its wake-up.
    SELECT open_id, wake_at, next_slot_at, read_to, isolated_since IS NOT NULL AS isolated,
           CASE videos WHEN 0 THEN {{ assumed_videos }}
                       ELSE least(videos, :rows_read) END AS videos,
           {{ rate_share_now }} AS share,
           :managed AND refresh_token IS NOT NULL AS renewable,
           {{ token_is_dead }} AS dead,
           greatest(token_due_at, token_request_until) <= now() AS due
    FROM refresher.accounts AS a
    WHERE {{ claimable who="{{ who }}" horizon="(SELECT horizon FROM pace)" }}
      AND (:only::text[] IS NULL OR open_id = ANY (:only))
    ORDER BY {{ first }}
    LIMIT :accounts
    FOR UPDATE SKIP LOCKED
),
locked AS MATERIALIZED (
    -- Whether the statement sees all that was inserted before the locks, and none is to come.
    SELECT refresher.is_latest(pg_current_snapshot()) AS last,
           -- Whether others held rows that would have been picked.
           CASE WHEN number < :accounts THEN number < (
               SELECT count(*)
               FROM (
                   SELECT FROM refresher.accounts AS a
                   WHERE {{ claimable who="{{ is_due }}" horizon="(SELECT horizon FROM pace)" }}
                     AND (:only::text[] IS NULL OR open_id = ANY (:only))
                   ORDER BY wake_at
                   LIMIT :accounts
               ) AS due
           ) ELSE false END AS passed_by
    FROM (SELECT count(*) AS number FROM picked) AS locked_first
),
affordable AS (
    -- By the counts of their last release: a huge account, or many small ones. A token that is to
    -- be refreshed comes first: nothing is asked with the old one.
    SELECT *,
           renewable AND (due OR dead) AS token_due,
           {{ own_step }} AS own_step
    FROM (
        SELECT *, sum(videos) OVER (ORDER BY wake_at, open_id ROWS UNBOUNDED PRECEDING) AS read
        FROM picked
    ) AS reading, pace
    WHERE read - videos < :rows_read AND read <= {{ most_rows_read }}
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
               (count(*) FILTER (WHERE turn = {{ turn_starved }}))::integer AS starved,
               (count(*) FILTER (WHERE turn = {{ turn_due }}))::integer AS due_videos,
               (count(*) FILTER (WHERE turn = {{ turn_alone }}))::integer AS alone,
               (count(*) FILTER (WHERE turn = {{ turn_top_up }}))::integer AS top_ups
        FROM (
            SELECT video_id, expires_at, misses, missing, ctid,
                   CASE WHEN due_at > now() THEN CASE WHEN misses = 0 THEN {{ turn_top_up }} END
                        WHEN NOT refused THEN {{ turn_due }}
                        -- Not of an isolated account: that would be its one try, each time.
                        WHEN due_at < now() - interval '{{ alone_waits_seconds }} seconds'
                             AND NOT p.isolated THEN {{ turn_starved }}
                        ELSE {{ turn_alone }} END AS turn
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
            -- Of an isolated account any: the next try meets others.
            ORDER BY turn, CASE WHEN p.isolated THEN now() - random() * interval '1 second'
                                ELSE due_at END, video_id COLLATE "C"
        ) AS ordered
    ) AS own
),
chosen AS (
    SELECT *, CASE
        WHEN starved > 0 OR due_videos = 0 THEN {{ if_nothing_else_is_due }}
        WHEN isolated THEN least(due_videos, {{ chunk_size }})
        WHEN own_step > '0' THEN least(due_videos, {{ chunk_size }} * greatest(1, floor(
            extract(epoch FROM horizon) / extract(epoch FROM own_step)))::integer)
        ELSE due_videos END AS chosen
    FROM asked
),
sized AS (
    SELECT *, ceil(chosen / {{ chunk_size }}.0)::integer AS chunks,
           CASE WHEN starved > 0 OR due_videos = 0 THEN chosen
                ELSE least({{ chunk_size }} * ceil(chosen / {{ chunk_size }}.0)::integer,
                           due_videos + top_ups) END AS filled
    FROM chosen
),
app AS MATERIALIZED (
    SELECT next_slot_at FROM refresher.app, pace WHERE app_step > '0' FOR UPDATE OF app
),
start AS MATERIALIZED (
    -- After the reading, however long it took, and as much later as claims came late of late.
    SELECT clock_timestamp() + :ahead::interval AS at,
           (SELECT {{ slot_from_now slot="next_slot_at"
                                    now="(clock_timestamp() + :ahead::interval)" }}
            FROM app) AS app_at,
           -- From here on only an application's trigger may wait, and not for long.
           set_config('lock_timeout', '200ms', true) AS impatient
    FROM (SELECT count(*) FROM asked) AS read_first, (SELECT count(*) FROM app) AS locked_first
),
budget AS (
    -- In seconds: at the end of its range a time has no distance.
    SELECT least(:chunk_budget, CASE WHEN app_at IS NOT NULL THEN greatest(0, ceil(
        (extract(epoch FROM at + greatest(horizon, app_step)) - extract(epoch FROM app_at))
        / nullif(extract(epoch FROM app_step), 0)
    )) END)::integer AS chunks
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
           starved + due_videos + alone
               > least(chosen, {{ chunk_size }} * (budget.chunks - chunks_before)) AS cut_off,
           greatest(
               {{ slot_from_now slot="next_slot_at" now="start.at" }},
               start.app_at + chunks_before * app_step
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
              a.refresh_token, a.tokens_generation, a.token_standing, a.token_failures,
              a.isolated_since, a.isolated_reason
)
SELECT l.*, g.open_id AS granted, locked.passed_by,
       g.first_slot, now() AS now, (SELECT at FROM start) AS slots_from,
       g.renewable, g.dead, g.token_due,
       (SELECT app_step > :app_step::interval FROM pace) AS app_limited,
       g.cut_off OR g.part_only AS unfinished,
       CASE WHEN locked.last AND g.read_to = '' AND NOT (g.part_only OR g.token_due)
            THEN g.videos_read END AS all_videos,
       extract(epoch FROM g.own_step)::float8 AS step_seconds,
       {{ chosen_of column="video_ids" }} AS video_ids,
       {{ due_videos }} AS due_videos,
       {{ chosen_of column="expires_ats" }} AS expires_ats,
       {{ chosen_of column="misses" }} AS misses,
       {{ chosen_of column="missing" }} AS missing,
       array_to_string({{ chosen_of column="ctids" }}, ' ') AS ctids
-- A row in any case, and one for what was granted and could not be leased.
FROM locked LEFT JOIN (granted AS g LEFT JOIN leased AS l USING (open_id)) ON true
