-- Revision 0001, refresher/postgres/claims.py
WITH picked AS MATERIALIZED (
    -- FOR UPDATE, as it conflicts with the key-share lock of an insert into videos that has not
    -- been committed: that account waits for it rather than miss its wake-up.
    SELECT open_id, wake_at, next_slot_at, greatest(videos, 1) AS videos
    FROM refresher.accounts
    WHERE state = 'active'
      AND wake_at <= now()
      AND (lease_expires_at IS NULL OR lease_expires_at <= now())
      AND next_slot_at <= now() + :horizon::interval
    ORDER BY wake_at
    LIMIT :chunk_budget
    FOR UPDATE SKIP LOCKED
),
affordable AS (
    -- By the counts of their last release: a few huge accounts, or many small ones.
    SELECT *
    FROM (
        SELECT *, sum(videos) OVER (ORDER BY wake_at, open_id ROWS UNBOUNDED PRECEDING) AS read
        FROM picked
    ) AS reading
    WHERE read - videos < :rows_read
),
asked AS MATERIALIZED (
    -- LATERAL with a window: each account's rows are read once, by the primary key, whatever the
    -- planner thinks of the number of accounts. Due videos first, topped up to full chunks; a
    -- video whose last answer brought no cover is no top-up: it might spoil the others' request.
    SELECT p.open_id, p.wake_at, p.next_slot_at, own.*
    FROM affordable AS p
    CROSS JOIN LATERAL (
        SELECT array_agg(video_id) AS video_ids,
               array_agg(due_at) AS due_ats,
               array_agg(expires_at) AS expires_ats,
               array_agg(misses) AS misses,
               array_agg(missing) AS missing,
               ceil(count(*) / 20.0)::integer AS chunks
        FROM (
            SELECT video_id, due_at, misses,
                   CASE WHEN cover_image_url IS NOT NULL THEN cover_expires_at END AS expires_at,
                   missing_since IS NOT NULL AS missing,
                   row_number() OVER (ORDER BY due_at, video_id) AS place,
                   count(*) FILTER (WHERE due_at <= now()) OVER () AS due
            FROM refresher.videos
            WHERE open_id = p.open_id AND (due_at <= now() OR misses = 0)
            ORDER BY place
        ) AS ordered
        WHERE place <= 20 * least(ceil(due / 20.0), :most_chunks)
    ) AS own
),
app AS MATERIALIZED (
    SELECT next_slot_at FROM refresher.app WHERE :app_step::interval > '0' FOR UPDATE
),
start AS MATERIALIZED (
    -- After the reading, however long it took: a slot must not lie in the past.
    SELECT clock_timestamp() AS at,
           (SELECT greatest(next_slot_at, clock_timestamp()) FROM app) AS app_at
    FROM (SELECT count(*) FROM asked) AS read_first, (SELECT count(*) FROM app) AS locked_first
),
budget AS (
    SELECT least(:chunk_budget, ceil(
        extract(epoch FROM at + :horizon::interval - app_at) / nullif(extract(epoch FROM :app_step::interval), 0)
    ))::integer AS chunks
    FROM start
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
               next_slot_at, start.at, start.app_at + chunks_before * :app_step::interval
           ) AS first_slot
    FROM counted, budget, start
    WHERE chunks_before < budget.chunks
),
spent AS (
    UPDATE refresher.app
    SET next_slot_at = start.app_at
        + (SELECT coalesce(sum(granted_chunks), 0) FROM granted) * :app_step::interval
    FROM start
    WHERE start.app_at IS NOT NULL
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
            ELSE g.first_slot + g.granted_chunks * :step::interval
        END
    FROM granted AS g
    WHERE a.open_id = g.open_id
    RETURNING a.open_id, a.access_token, a.lease_epoch, a.lease_expires_at, a.failures
)
SELECT l.*, g.first_slot, now() AS now,
       g.video_ids[:20 * g.granted_chunks] AS video_ids,
       g.due_ats[:20 * g.granted_chunks] AS due_ats,
       g.expires_ats[:20 * g.granted_chunks] AS expires_ats,
       g.misses[:20 * g.granted_chunks] AS misses,
       g.missing[:20 * g.granted_chunks] AS missing
FROM leased AS l JOIN granted AS g USING (open_id)
