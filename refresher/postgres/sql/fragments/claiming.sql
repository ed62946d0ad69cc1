-- Claims accounts: leases them, reads their videos and reserves slots, in one round trip.
--
-- All times are of the database's clock. The chunks come out of a budget: accounts beyond it are
-- left for other replicas. `who` says which accounts may be claimed, `first` in which order.


-- ---------------------------- 1. Which accounts ----------------------------

WITH pace AS MATERIALIZED (
    {{ pace }}
),
locked_accounts AS MATERIALIZED (
    -- A row: an account that this replica has locked. An insert into videos that is not committed
    -- yet holds a key-share lock on its account, which conflicts with FOR UPDATE. So we skip this
    -- account now, and the insert can still wake it.
    SELECT open_id, wake_at, next_slot_at, read_to, isolated_since IS NOT NULL AS isolated,
           CASE videos WHEN 0 THEN {{ assumed_videos }}
                       ELSE least(videos, :rows_read) END AS videos,
           {{ rate_share_now }} AS rate_share,
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
visibility AS MATERIALIZED (
    -- One row: what this statement can see. `sees_all`: all videos of the locked accounts, and no
    -- insert is still open. `skipped_locked`: others have locked the rows of due accounts.
    SELECT refresher.is_latest(pg_current_snapshot()) AS sees_all,
           (SELECT paused_since FROM refresher.app) AS paused_since,
           CASE WHEN number < :accounts THEN number < (
               SELECT count(*)
               FROM (
                   SELECT 1 FROM refresher.accounts AS a
                   WHERE {{ claimable who="{{ is_due }}" horizon="(SELECT horizon FROM pace)" }}
                     AND (:only::text[] IS NULL OR open_id = ANY (:only))
                   ORDER BY wake_at
                   LIMIT :accounts
               ) AS due
           ) ELSE false END AS skipped_locked
    FROM (SELECT count(*) AS number FROM locked_accounts) AS locked_first
),
accounts_to_read AS (
    -- A row: a locked account whose videos we read now: one large account or many small ones. How
    -- many videos it has we know from its last release. If its token is due, we claim it for the
    -- token alone and read no videos.
    SELECT *,
           renewable AND (due OR dead) AS token_due,
           {{ own_step }} AS own_step
    FROM (
        SELECT *, sum(videos) OVER (ORDER BY wake_at, open_id ROWS UNBOUNDED PRECEDING) AS read
        FROM locked_accounts
    ) AS reading, pace
    WHERE read - videos < :rows_read AND read <= {{ most_rows_read }}
),


-- ------------------------ 2. Which of their videos -------------------------

accounts_with_videos AS MATERIALIZED (
    -- A row: an account with its videos, in the order in which we ask for them: starved ones, due
    -- ones, those that are asked for alone, top-ups. LATERAL reads each account's rows once, by the
    -- primary key, whatever number of accounts the planner expects.
    SELECT a.*, their_videos.*, videos_read = :rows_read AS part_only
    FROM accounts_to_read AS a
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
                   {{ turn isolated="a.isolated" }} AS turn
            FROM (
                SELECT ctid, video_id, due_at, misses,
                       CASE WHEN cover_image_url IS NOT NULL
                            THEN date_part('epoch', cover_expires_at) END AS expires_at,
                       missing_since IS NOT NULL AS missing,
                       refusal IS NOT NULL AS refused
                FROM refresher.videos
                WHERE open_id = a.open_id AND video_id > a.read_to AND NOT a.token_due
                ORDER BY video_id
                -- LIMIT also keeps the URLs out of the sort: we only need to know if there is one.
                LIMIT :rows_read
            ) AS part
            -- Of an isolated account any video, by chance: so the next try asks for others.
            ORDER BY turn, CASE WHEN a.isolated THEN now() - random() * interval '1 second'
                                ELSE due_at END, video_id COLLATE "C"
        ) AS ordered
    ) AS their_videos
),
wishes AS (
    -- A row: an account, and how many of its videos we want now.
    SELECT *, CASE
        WHEN starved > 0 OR due_videos = 0 THEN {{ wanted_if_nothing_is_due }}
        WHEN isolated THEN least(due_videos, {{ chunk_size }})
        WHEN own_step > '0' THEN least(due_videos, {{ chunk_size }} * greatest(1, floor(
            extract(epoch FROM horizon) / extract(epoch FROM own_step)))::integer)
        ELSE due_videos END AS wanted_videos
    FROM accounts_with_videos
),


-- ------------------------- 3. How many, and when ---------------------------

wishes_in_chunks AS (
    -- A row: the same in chunks. Top-ups fill the last chunk.
    SELECT *, ceil(wanted_videos / {{ chunk_size }}.0)::integer AS wanted_chunks,
           CASE WHEN starved > 0 OR due_videos = 0 THEN wanted_videos
                ELSE least({{ chunk_size }} * ceil(wanted_videos / {{ chunk_size }}.0)::integer,
                           due_videos + top_ups) END AS filled_videos
    FROM wishes
),
app AS MATERIALIZED (
    -- The app's row, locked. No row if the app has no limit.
    SELECT next_slot_at FROM refresher.app, pace WHERE app_step > '0' FOR UPDATE OF app
),
start AS MATERIALIZED (
    -- One row: when the first slots begin. We look at the clock after the reading, as that may take
    -- long. `ahead` is how late the last claims came.
    SELECT clock_timestamp() + :ahead::interval AS at,
           (SELECT {{ slot_from_now slot="next_slot_at"
                                    now="(clock_timestamp() + :ahead::interval)" }}
            FROM app) AS app_at,
           -- All locks are held now. From here on only an application's trigger can wait.
           set_config('lock_timeout', '{{ trigger_waits_ms }}ms', true) AS patience
    FROM (SELECT count(*) FROM accounts_with_videos) AS read_first,
         (SELECT count(*) FROM app) AS locked_first
),
budget AS (
    -- One row: how many chunks the replica and the app's slots have room for.
    SELECT least(:chunk_budget, CASE WHEN app_at IS NOT NULL
                                     THEN {{ app_room now="at" slot="app_at" }} END)::integer
               AS chunks
    FROM start, pace
),
wishes_in_turn AS (
    -- A row: the same, and how many chunks the accounts before this one want.
    SELECT *, coalesce(
        sum(wanted_chunks) OVER (
            ORDER BY wake_at, open_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ),
        0
    )::integer AS chunks_before
    FROM wishes_in_chunks
),
grants AS MATERIALIZED (
    -- A row: an account with its chunks and its first slot. `cut_off`: of the videos we have read,
    -- more are due than we ask for now.
    SELECT *, now() + :lease::interval AS lease_ends_at,
           CASE WHEN granted_chunks > 0 THEN first_slot + granted_chunks * own_step
                ELSE next_slot_at END AS free_at,
           -- In a large account the next claim reads on from here.
           CASE WHEN token_due OR cut_off THEN read_to
                WHEN part_only THEN last_read
                ELSE '' END AS read_on_from
    FROM (
        SELECT wishes_in_turn.*,
               least(wanted_chunks, budget.chunks - chunks_before) AS granted_chunks,
               starved + due_videos + alone
                   > least(wanted_videos, {{ chunk_size }} * (budget.chunks - chunks_before))
                   AS cut_off,
               greatest(
                   {{ slot_from_now slot="next_slot_at" now="start.at" }},
                   start.app_at + chunks_before * app_step
               ) AS first_slot
        FROM wishes_in_turn, budget, start
        WHERE chunks_before < budget.chunks
    ) AS granted
),
spent AS MATERIALIZED (
    -- One row: where the app's next slot begins. No row if the app has no limit or none was granted.
    SELECT start.app_at + chunks * (SELECT app_step FROM pace) AS next_slot_at
    FROM start, (SELECT sum(granted_chunks) AS chunks FROM grants) AS granted
    WHERE start.app_at IS NOT NULL AND chunks > 0
),


-- ----------------------------- 4. Lease them -------------------------------

spent_app_slots AS (
    UPDATE refresher.app
    SET next_slot_at = spent.next_slot_at
    FROM spent
),
leases AS (
    -- A row: an account under lease, as it is stored from now on.
    UPDATE refresher.accounts AS a
    SET lease_owner = :replica,
        lease_epoch = a.lease_epoch + 1,
        lease_expires_at = g.lease_ends_at,
        -- If this replica crashes, the account is due again when the lease has run out.
        wake_at = g.lease_ends_at,
        next_slot_at = g.free_at,
        read_to = g.read_on_from
    FROM grants AS g
    WHERE a.open_id = g.open_id
    RETURNING a.open_id, a.access_token, a.lease_epoch, a.lease_expires_at, a.failures,
              a.refresh_token, a.tokens_generation, a.token_standing, a.token_failures,
              a.isolated_since, a.isolated_reason
)
SELECT l.*, g.open_id AS granted, visibility.skipped_locked, visibility.paused_since,
       g.first_slot, now() AS now, (SELECT at FROM start) AS slots_from,
       g.renewable, g.dead, g.token_due,
       (SELECT app_step > :app_step::interval FROM pace) AS app_limited,
       g.cut_off OR g.part_only AS unfinished,
       CASE WHEN visibility.sees_all AND g.read_to = '' AND NOT (g.part_only OR g.token_due)
            THEN g.videos_read END AS all_videos,
       extract(epoch FROM g.own_step)::float8 AS step_seconds,
       {{ granted_videos column="video_ids" }} AS video_ids,
       {{ due_videos }} AS due_videos,
       {{ granted_videos column="expires_ats" }} AS expires_ats,
       {{ granted_videos column="misses" }} AS misses,
       {{ granted_videos column="missing" }} AS missing,
       array_to_string({{ granted_videos column="ctids" }}, ' ') AS ctids
-- There is always at least one row. If a trigger undid a lease, its row has only `granted`.
FROM visibility LEFT JOIN (grants AS g LEFT JOIN leases AS l USING (open_id)) ON true
