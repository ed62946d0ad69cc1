"""Claiming due accounts under a lease and giving them back with their next wake-up."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Final

from asyncpg import Record

from refresher.domain.app_limit import (
    REMEMBERED_SECONDS,
    Answers,
    AppLimit,
    Heard,
    app_limit,
)
from refresher.domain.claiming import APP_HORIZON_SECONDS, APP_REACH_SECONDS
from refresher.domain.errors import DatabaseUnavailable, TokenUnreadable
from refresher.domain.model import (
    Claim,
    OpenId,
    Release,
    Released,
    TokenStanding,
    Video,
)
from refresher.domain.pacing import (
    APP_RATE_DOUBLED_SECONDS,
    APP_RATE_KEPT_SECONDS,
    HEADROOM_SECONDS,
    HORIZON_SECONDS,
    LEAST_RATE_SHARE,
    PAST_SECONDS,
    RATE_DECREASE,
    RATE_RECOVERY_PER_MINUTE,
    WINDOW_SECONDS,
    DatabaseTime,
    Lateness,
    step_seconds,
)
from refresher.postgres.database import APPLICATION_NAME, Pool, connection
from refresher.postgres.parts import REFUSALS, in_parts
from refresher.postgres.sealing import Sealer, seal_seen

if TYPE_CHECKING:
    from refresher.postgres.database import Pooled

#: Videos that a claim reads of one account, and in all before it takes no further one. A larger
#: account is read part by part, in the order of its video IDs.
ROWS_READ: Final = 1_000
#: No further account may make it more than so many: the slowest claims are those that come to a
#: large account after others.
MOST_ROWS_READ: Final = 1_500
#: A probe chooses among twice as many accounts.
PROBE_CANDIDATES: Final = 500
#: What an account that was never counted is taken to have.
ASSUMED_VIDEOS: Final = 100
#: The distance of two slots of a throttled account for which no limit is configured.
ASSUMED_STEP_SECONDS: Final = step_seconds(600)
#: An app-wide rate that was found to hold is kept to for so long after the last 429.
RATE_KEPT: Final = f"interval '{APP_RATE_KEPT_SECONDS} seconds'"
#: Of releases that have met a lock each part waits for so long at most.
PART_LOCK_SECONDS: Final = 0.05
#: Renewals are split for no longer, so that other leases do not run out meanwhile.
SPLIT_SECONDS: Final = 1.0
#: A replica that keeps to the app's rate tells its answers more often than that.
TOLD_WITHIN_SECONDS: Final = 10.0

# What an account's rate has recovered to, and what the app's has grown to, since the last 429. One
# that lies in the future, as the server's clock was set back, counts as just now.
SHARE_NOW: Final = f"""
least(1, a.rate_share + {RATE_RECOVERY_PER_MINUTE} * greatest(0,
    extract(epoch FROM now()) - extract(epoch FROM a.rate_lowered_at)) / 60)
"""
APP_RATE_NOW: Final = f"""
app.rate * power(2, power(greatest(0, least({APP_RATE_KEPT_SECONDS}, (
    extract(epoch FROM now()) - extract(epoch FROM app.rate_lowered_at))::float8
    )) / {APP_RATE_DOUBLED_SECONDS}, 3))
"""
# The distance of two of the app's slots: by its configured limit, and by the rate that was found to
# hold, for ten minutes after the 429 that showed it.
APP_WINDOW_SECONDS: Final = WINDOW_SECONDS + HEADROOM_SECONDS + APP_REACH_SECONDS
APP_STEP: Final = f"""
greatest({{configured}}::interval, CASE
    WHEN app.rate IS NOT NULL AND app.rate_lowered_at > now() - {RATE_KEPT}
    THEN interval '1 second' * {APP_WINDOW_SECONDS} / ({APP_RATE_NOW}) END)
"""
#: An account's own distance of two slots, at its share of the rate.
OWN_STEP: Final = f"""
CASE WHEN share < 1
     THEN greatest(pace.step, interval '{ASSUMED_STEP_SECONDS} seconds') / share
     ELSE pace.step END
"""
# The first slot to be had. An account that is worked again and again is claimed a little after its
# last slot: without those that have just passed a twentieth of its quota would be lost between two
# claims. One that was idle begins now: in the past its chunks would be late before they are sent.
FROM_NOW: Final = f"""
CASE WHEN {{slot}} >= {{now}} - interval '{PAST_SECONDS} seconds' THEN {{slot}} ELSE {{now}} END
"""
#: An access token that is not to be sent any more.
DEAD: Final = """
(a.access_token IS NULL OR a.token_standing = 'refused'
 OR coalesce(a.access_token_expires_at <= now(), false))
"""
# The wake-up that an account's token asks for: none where others refresh it.
TOKEN_WAKE_AT: Final = """
CASE WHEN {managed} AND a.refresh_token IS NOT NULL
     THEN greatest({due}, a.token_request_until) ELSE 'infinity' END
"""

#: Whom a claim takes.
IS_DUE: Final = "wake_at <= now()"
#: What may be claimed now, but for what is locked or left alone.
CLAIMABLE: Final = f"""
state = 'active'
AND {{who}}
AND (lease_expires_at IS NULL OR lease_expires_at <= now())
AND next_slot_at <= now() + {{horizon}}
-- New videos do not cut short the wait for a token that has to come before them: a back-off,
-- or somebody else's request whose outcome may still be stored.
AND NOT ({{managed}} AND {DEAD} AND ((token_failures > 0 AND token_due_at > now())
                                     OR coalesce(token_request_until > now(), false)))
AND open_id <> ALL ({{left_out}})
"""

#: The order in which a claim takes an account's videos.
STARVED, DUE, ALONE, TOP_UP = range(4)
#: Of what was read, as far as chunks were granted: the due ones and their top-ups. Between the two
#: lies what is asked for alone.
CHOSEN: Final = """
g.{0}[:least(g.chosen, 20 * g.granted_chunks)]
|| g.{0}[greatest(g.due_videos, g.chosen) + g.alone + 1:
         g.alone + least(g.filled, 20 * g.granted_chunks)]
"""

DUE_OF_CHOSEN: Final = "least(g.chosen, 20 * g.granted_chunks)"


# One round trip. Times are decided by the database's clock; the chunks are counted out of a budget
# so that whatever the replica cannot take on stays claimable for others.
def _claim_statement(*, who: str, first: str, if_nothing_else_is_due: str, due_videos: str) -> str:
    """Of those `who` may be claimed in the order `first`.

    `if_nothing_else_is_due`: how many videos are asked for then; `due_videos`: how many of the
    chosen count as due.
    """
    return f"""
WITH pace AS MATERIALIZED (
    SELECT app_step,
           greatest($5::interval, app_step) AS step,
           CASE WHEN app_step > '0' THEN least($3::interval, $4::interval)
                ELSE $3::interval END AS horizon
    FROM (
        -- One row, also for a planner that has never seen the table analyzed.
        SELECT {APP_STEP.format(configured="$6")} AS app_step FROM refresher.app LIMIT 1
    ) AS app
),
picked AS MATERIALIZED (
    -- FOR UPDATE, as it conflicts with the key-share lock of an insert into videos that has not
    -- been committed: that account waits for it rather than miss its wake-up.
    SELECT open_id, wake_at, next_slot_at, read_to, isolated_since IS NOT NULL AS isolated,
           CASE videos WHEN 0 THEN {ASSUMED_VIDEOS} ELSE least(videos, $8) END AS videos,
           {SHARE_NOW} AS share,
           $9 AND refresh_token IS NOT NULL AS renewable,
           {DEAD} AS dead,
           greatest(token_due_at, token_request_until) <= now() AS due
    FROM refresher.accounts AS a
    WHERE {
        CLAIMABLE.format(
            who=who, horizon="(SELECT horizon FROM pace)", managed="$9", left_out="$11"
        )
    }
      AND ($12::text[] IS NULL OR open_id = ANY ($12))
    ORDER BY {first}
    LIMIT $10
    FOR UPDATE SKIP LOCKED
),
locked AS MATERIALIZED (
    -- Whether the statement sees all that was inserted before the locks, and none is to come.
    SELECT refresher.is_latest(pg_current_snapshot()) AS last,
           -- Whether others held rows that would have been picked.
           CASE WHEN number < $10 THEN number < (
               SELECT count(*)
               FROM (
                   SELECT FROM refresher.accounts AS a
                   WHERE {
        CLAIMABLE.format(
            who=IS_DUE, horizon="(SELECT horizon FROM pace)", managed="$9", left_out="$11"
        )
    }
                     AND ($12::text[] IS NULL OR open_id = ANY ($12))
                   ORDER BY wake_at
                   LIMIT $10
               ) AS due
           ) ELSE false END AS passed_by
    FROM (SELECT count(*) AS number FROM picked) AS locked_first
),
affordable AS (
    -- By the counts of their last release: a huge account, or many small ones. A token that is to
    -- be refreshed comes first: nothing is asked with the old one.
    SELECT *,
           renewable AND (due OR dead) AS token_due,
           {OWN_STEP} AS own_step
    FROM (
        SELECT *, sum(videos) OVER (ORDER BY wake_at, open_id ROWS UNBOUNDED PRECEDING) AS read
        FROM picked
    ) AS reading, pace
    WHERE read - videos < $8 AND read <= {MOST_ROWS_READ}
),
asked AS MATERIALIZED (
    -- LATERAL: each account's rows are read once, by the primary key, whatever the planner thinks
    -- of the number of accounts. Due videos first, then what fills their chunks up; a video whose
    -- last answer brought no cover is no top-up: it might spoil the others' request. One that was
    -- refused alone is asked for alone, when nothing else is due or when it has waited for an hour.
    SELECT p.*, own.*, videos_read = $8 AS part_only
    FROM affordable AS p
    CROSS JOIN LATERAL (
        SELECT array_agg(video_id) AS video_ids,
               array_agg(expires_at) AS expires_ats,
               array_agg(misses) AS misses,
               array_agg(missing) AS missing,
               array_agg(ctid) AS ctids,
               count(*) AS videos_read,
               max(video_id) AS last_read,
               (count(*) FILTER (WHERE turn = {STARVED}))::integer AS starved,
               (count(*) FILTER (WHERE turn = {DUE}))::integer AS due_videos,
               (count(*) FILTER (WHERE turn = {ALONE}))::integer AS alone,
               (count(*) FILTER (WHERE turn = {TOP_UP}))::integer AS top_ups
        FROM (
            SELECT video_id, expires_at, misses, missing, ctid,
                   CASE WHEN due_at > now() THEN CASE WHEN misses = 0 THEN {TOP_UP} END
                        WHEN NOT refused THEN {DUE}
                        -- Not of an isolated account: that would be its one try, each time.
                        WHEN due_at < now() - interval '1 hour' AND NOT p.isolated THEN {STARVED}
                        ELSE {ALONE} END AS turn
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
                LIMIT $8
            ) AS part
            -- Of an isolated account any: the next try meets others.
            ORDER BY turn, CASE WHEN p.isolated THEN now() - random() * interval '1 second'
                                ELSE due_at END, video_id COLLATE "C"
        ) AS ordered
    ) AS own
),
chosen AS (
    SELECT *, CASE
        WHEN starved > 0 OR due_videos = 0 THEN {if_nothing_else_is_due}
        WHEN isolated THEN least(due_videos, 20)
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
    -- After the reading, however long it took, and as much later as claims came late of late.
    SELECT clock_timestamp() + $13::interval AS at,
           (SELECT {
        FROM_NOW.format(slot="next_slot_at", now="(clock_timestamp() + $13::interval)")
    } FROM app) AS app_at,
           -- From here on only an application's trigger may wait, and not for long.
           set_config('lock_timeout', '200ms', true) AS impatient
    FROM (SELECT count(*) FROM asked) AS read_first, (SELECT count(*) FROM app) AS locked_first
),
budget AS (
    -- In seconds: at the end of its range a time has no distance.
    SELECT least($1, CASE WHEN app_at IS NOT NULL THEN greatest(0, ceil(
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
           starved + due_videos + alone > least(chosen, 20 * (budget.chunks - chunks_before))
               AS cut_off,
           greatest(
               {FROM_NOW.format(slot="next_slot_at", now="start.at")},
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
    SET lease_owner = $2,
        lease_epoch = a.lease_epoch + 1,
        lease_expires_at = now() + $7::interval,
        -- So a crashed replica's account is due again when its lease has run out.
        wake_at = now() + $7::interval,
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
       (SELECT app_step > $6::interval FROM pace) AS app_limited,
       g.cut_off OR g.part_only AS unfinished,
       CASE WHEN locked.last AND g.read_to = '' AND NOT (g.part_only OR g.token_due)
            THEN g.videos_read END AS all_videos,
       extract(epoch FROM g.own_step)::float8 AS step_seconds,
       {CHOSEN.format("video_ids")} AS video_ids,
       {due_videos} AS due_videos,
       {CHOSEN.format("expires_ats")} AS expires_ats,
       {CHOSEN.format("misses")} AS misses,
       {CHOSEN.format("missing")} AS missing,
       array_to_string({CHOSEN.format("ctids")}, ' ') AS ctids
-- A row in any case, and one for what was granted and could not be leased.
FROM locked LEFT JOIN (granted AS g LEFT JOIN leased AS l USING (open_id)) ON true
"""


SQL_CLAIM: Final = _claim_statement(
    who=IS_DUE,
    first="wake_at",
    if_nothing_else_is_due="least(1, starved + alone)",
    due_videos=DUE_OF_CHOSEN,
)

# Whom a claim that failed may have picked.
SQL_CLAIMABLE: Final = f"""
SELECT open_id
FROM refresher.accounts AS a
WHERE {CLAIMABLE.format(who=IS_DUE, horizon="$1::interval", managed="$2", left_out="$3")}
ORDER BY wake_at
LIMIT $4
"""

# While nobody is answered: is it TikTok, or those that were asked? Accounts go first that have not
# failed since somebody was answered, and of those the ones that were well before; by chance, as the
# bad ones may all be due together. So one that is not due is asked, too, for what is due next:
# those that sleep longest were answered last.
CANDIDATES: Final = f"""
open_id = ANY (ARRAY(
    (SELECT open_id FROM refresher.accounts
     WHERE state = 'active' AND wake_at <= now()
     ORDER BY wake_at
     LIMIT {PROBE_CANDIDATES})
    UNION ALL
    (SELECT open_id FROM refresher.accounts
     WHERE state = 'active' AND wake_at < 'infinity' AND videos > 0
       AND failures = 0 AND isolated_since IS NULL AND open_id <> ALL ({{tried}}::text[])
     ORDER BY wake_at DESC
     LIMIT {PROBE_CANDIDATES})
))
"""
PROBE_ORDER: Final = """
open_id = ANY ({tried}::text[]), isolated_since IS NOT NULL, failures > 0, random()
"""
SQL_PROBE: Final = _claim_statement(
    who=CANDIDATES.format(tried="$14"),
    first=PROBE_ORDER.format(tried="$14"),
    if_nothing_else_is_due="CASE WHEN starved + alone > 0 THEN 1 ELSE least(top_ups, 20) END",
    due_videos=f"CASE WHEN g.due_videos + g.starved + g.alone > 0 THEN {DUE_OF_CHOSEN} ELSE 0 END",
)

# Whom a probe that failed may have picked: by chance, so any of them.
SQL_PROBEABLE: Final = f"""
SELECT open_id
FROM refresher.accounts AS a
WHERE {
    CLAIMABLE.format(
        who=CANDIDATES.format(tried="$4"), horizon="$1::interval", managed="$2", left_out="$3"
    )
}
ORDER BY {PROBE_ORDER.format(tried="$4")}
"""

# A slot more for an account under lease, after those it has, and one of the app's where it is
# limited.
SQL_RESERVE: Final = f"""
WITH pace AS MATERIALIZED (
    SELECT app_step, greatest($3::interval, app_step) AS step
    FROM (
        SELECT {APP_STEP.format(configured="$4")} AS app_step FROM refresher.app LIMIT 1
    ) AS app
),
own AS MATERIALIZED (
    SELECT open_id, next_slot_at, {SHARE_NOW} AS share
    FROM refresher.accounts AS a
    WHERE open_id = $1 AND lease_epoch = $2 AND lease_expires_at > now()
    -- Not as strong as a claim: results of the same account are being written under a key share.
    FOR NO KEY UPDATE SKIP LOCKED
),
app AS MATERIALIZED (
    SELECT next_slot_at FROM refresher.app, pace
    WHERE app_step > '0' AND (SELECT count(*) FROM own) > 0
    FOR UPDATE OF app
),
start AS MATERIALIZED (
    SELECT clock_timestamp() + $5::interval AS at FROM (SELECT count(*) FROM app) AS locked_first
),
slot AS MATERIALIZED (
    SELECT open_id, {OWN_STEP} AS own_step,
           greatest({FROM_NOW.format(slot="next_slot_at", now="start.at")},
                    (SELECT {FROM_NOW.format(slot="next_slot_at", now="start.at")} FROM app)) AS at
    FROM own, pace, start
),
spent AS (
    UPDATE refresher.app
    -- Not the account's own slot: those before it are for others.
    SET next_slot_at = {FROM_NOW.format(slot="app.next_slot_at", now="start.at")} + app_step
    FROM slot, pace, start
    WHERE app_step > '0'
)
UPDATE refresher.accounts AS a
SET next_slot_at = slot.at + slot.own_step
FROM slot
WHERE a.open_id = slot.open_id
RETURNING slot.at
"""

# An account whose row somebody else has locked is left out rather than waited for; it is tried
# again, and its lease runs out in any case. A stale epoch is somebody else's lease: left alone.
# What was learnt of a token that has been replaced meanwhile says nothing of the new one.
RELEASING: Final = f"""
WITH given AS MATERIALIZED (
    SELECT r.*
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::integer[], $5::float8[], $6::float8[],
                $7::text[], $8::text[], $9::boolean[], $10::boolean[], $11::float8[],
                $12::integer[], $13::boolean[], $14::boolean[], $20::boolean[], $21::text[])
         AS r (open_id, lease_epoch, generation, failures, retry_seconds, pause_seconds,
               park_state, park_reason, answered, refused, token_retry_seconds, requests,
               unfinished, passed_over, quota_spent, isolated_reason){{patience}}
),
fresh AS MATERIALIZED (
    -- One video speaks for those that were written alike with it: it shows what the database has,
    -- also after a failover that has lost a write-back.
    SELECT s.open_id, sum(s.videos)::integer AS videos, min(v.cover_expires_at) AS valid_until,
           min(v.due_at) AS earliest_due_at
    FROM unnest($17::text[], $18::text[], $19::integer[]) AS s (open_id, video_id, videos)
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
           -- Somebody else's new tokens have ended an isolation; a pair that this claim stored and
           -- a new seal have not, though they, too, raise the generation.
           a.tokens_generation = r.generation OR a.isolated_since IS NOT NULL AS same_standing,
           a.failures AS stored_failures,
           r.park_state IS NOT NULL AND a.state = 'active'
               AND a.tokens_generation = r.generation AS parked,
           -- A large account is counted when all of it has been read, not with every part.
           r.unfinished AND a.videos > $16 AS uncounted,
           a.videos, a.valid, a.expired, a.uncovered, a.missing, a.unreachable, a.valid_until,
           least(a.earliest_due_at, now()) AS earliest_due_at
    FROM given AS r
    JOIN refresher.accounts AS a
      ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_owner IS NOT NULL
    ORDER BY r.open_id
    FOR UPDATE OF a SKIP LOCKED
),
counted AS MATERIALIZED (
    SELECT open_id, h.same_tokens, h.parked, h.park_state, h.park_reason, h.requests,
           CASE WHEN h.same_standing OR h.isolated_reason IS NULL THEN h.failures
                ELSE h.stored_failures END AS failures,
           CASE WHEN h.same_standing OR h.isolated_reason IS NULL THEN h.retry_seconds ELSE 0 END
               AS retry_seconds,
           h.pause_seconds, h.token_retry_seconds, h.refused, h.answered,
           h.passed_over, h.quota_spent,
           CASE WHEN h.same_standing AND NOT h.parked THEN h.isolated_reason END AS isolated_reason,
           c.*,
           CASE WHEN NOT h.same_tokens THEN h.was_token_due_at
                WHEN h.refused THEN now()
                WHEN h.token_retry_seconds > 0
                THEN now() + h.token_retry_seconds * interval '1 second'
                ELSE h.was_token_due_at END AS token_due_at
    FROM held AS h
    LEFT JOIN fresh AS f USING (open_id)
    CROSS JOIN LATERAL (
        SELECT videos, valid, expired, uncovered, missing, unreachable, valid_until, earliest_due_at
        FROM refresher.count_videos(h.open_id, NULL) WHERE NOT h.uncounted AND f.videos IS NULL
        UNION ALL
        SELECT f.videos, f.videos, 0, 0, 0, 0, f.valid_until, f.earliest_due_at
        WHERE NOT h.uncounted AND f.videos IS NOT NULL
        UNION ALL
        SELECT h.videos, h.valid, h.expired, h.uncovered, h.missing, h.unreachable, h.valid_until,
               h.earliest_due_at
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
            -- A hold: against new videos, too.
            WHEN c.isolated_reason IS NOT NULL
            THEN greatest(a.next_slot_at, now() + c.retry_seconds * interval '1 second')
            ELSE a.next_slot_at END,
        isolated_since = CASE WHEN c.isolated_reason IS NOT NULL
                              THEN coalesce(a.isolated_since, now()) END,
        isolated_reason = c.isolated_reason,
        -- A day's quota says nothing of how many requests a minute may have.
        rate_share = CASE WHEN c.pause_seconds > 0 AND NOT c.quota_spent
                          THEN greatest({LEAST_RATE_SHARE}, {RATE_DECREASE} * {SHARE_NOW})
                          ELSE a.rate_share END,
        rate_lowered_at = CASE WHEN c.pause_seconds > 0 AND NOT c.quota_spent THEN now()
                               ELSE a.rate_lowered_at END,
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
                {TOKEN_WAKE_AT.format(managed="$15", due="c.token_due_at")}
            ),
            now() + greatest(c.retry_seconds, c.pause_seconds) * interval '1 second'
        ) END,
        requests_since = date_trunc('hour', now()),
        requests = c.requests
            + CASE WHEN a.requests_since = date_trunc('hour', now()) THEN a.requests ELSE 0 END,
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
        state_since = CASE WHEN c.parked THEN now() ELSE a.state_since END
    FROM counted AS c
    WHERE a.open_id = c.open_id
    RETURNING a.open_id, c.parked, a.isolated_since IS NOT NULL AS isolated,
              greatest(a.wake_at, a.next_slot_at) AS wake_at
)
-- Not the difference of the two: before PostgreSQL 17 infinity has none.
SELECT open_id, parked, isolated,
       (extract(epoch FROM wake_at) - extract(epoch FROM now()))::float8 AS wake_in_seconds
FROM (
    SELECT * FROM released
    UNION ALL
    -- Given back already, by a statement whose commit was not heard of.
    SELECT a.open_id, r.park_state IS NOT NULL AND a.state = r.park_state,
           a.isolated_since IS NOT NULL, greatest(a.wake_at, a.next_slot_at)
    FROM given AS r
    JOIN refresher.accounts AS a ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_owner IS NULL
) AS done
"""
# Rows that are locked are skipped: only the trigger of an application may wait.
SQL_RELEASE: Final = RELEASING.format(
    patience=", (SELECT set_config('lock_timeout', '200ms', true)) AS impatient"
)
# For as long as it is told, and under a name of this statement's own.
SQL_RELEASE_ALONE: Final = RELEASING.format(
    patience=""", (
        SELECT set_config('lock_timeout', $22, true), set_config('application_name', $23, true)
    ) AS impatient"""
)

# Also a lease that has run out, as long as nobody else has taken the account since. A wake-up that
# somebody has lowered stays below the end of the lease, where the release looks for it.
SQL_RENEW: Final = """
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '200ms', true)
),
held AS MATERIALIZED (
    SELECT a.open_id
    FROM unnest($1::text[], $2::bigint[]) AS r (open_id, lease_epoch)
    JOIN refresher.accounts AS a
      ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    WHERE a.lease_expires_at IS NOT NULL
    ORDER BY a.open_id
    -- Not as strong as a claim: results of the same accounts are being written under a key share.
    FOR NO KEY UPDATE OF a SKIP LOCKED
)
UPDATE refresher.accounts AS a
SET wake_at = CASE WHEN a.wake_at < a.lease_expires_at THEN a.wake_at
                   ELSE now() + $3::interval END,
    lease_expires_at = now() + $3::interval
FROM held
WHERE a.open_id = held.open_id
  AND (SELECT count(*) FROM impatient) > 0
RETURNING a.open_id, a.lease_expires_at - now() AS left
"""

# What a replica saw answered, beside what the others saw; those that have stopped are left out.
SQL_TELL_ANSWERS: Final = f"""
UPDATE refresher.app
SET answers = (
        SELECT coalesce(jsonb_object_agg(key, value), '{{}}')
        FROM jsonb_each(app.answers)
        WHERE (value ->> 'at')::float8 > extract(epoch FROM now()) - {REMEMBERED_SECONDS}
    ) || jsonb_build_object($1::text, jsonb_build_object(
        'at', extract(epoch FROM now())::float8, 'answers', $2::text))
RETURNING coalesce(app.rate IS NOT NULL AND app.rate_lowered_at > now() - {RATE_KEPT}, false)
"""

# All that was told, how many others work and have told nothing, and the state that it is about.
SQL_HEAR_ANSWERS: Final = f"""
SELECT app.rate_lowered_at::text AS as_of, {APP_RATE_NOW} AS rate,
       ARRAY(SELECT extract(epoch FROM now())::float8 - (value ->> 'at')::float8
             FROM jsonb_each(app.answers) ORDER BY key) AS ages,
       ARRAY(SELECT value ->> 'answers' FROM jsonb_each(app.answers) ORDER BY key) AS answers,
       (SELECT count(DISTINCT lease_owner)
        FROM refresher.accounts
        WHERE lease_expires_at > now()
          AND lease_owner NOT IN (
              SELECT key FROM jsonb_each(app.answers)
              WHERE (value ->> 'at')::float8
                  > extract(epoch FROM now()) - {TOLD_WITHIN_SECONDS})) AS unheard
FROM refresher.app
"""

# It grows from when it is sent again. Not where another replica was faster: it may have heard more.
SQL_LIMIT_APP: Final = """
UPDATE refresher.app
SET rate = $1::float8,
    rate_lowered_at = now() + $2::interval,
    next_slot_at = greatest(app.next_slot_at, now() + $2::interval)
WHERE app.rate_lowered_at::text = $3
RETURNING true
"""


class Claims:
    """The accounts' leases and slots, for one replica. Raises `DatabaseUnavailable`.

    `managed`: access tokens are refreshed by us, so an account also wakes for its token. Tokens
    that lie in plain text are sealed as they are seen.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        replica: str,
        lease_seconds: float,
        rate_limit_per_token: int,
        rate_limit_per_app: int,
        managed: bool = False,
        sealer: Sealer | None = None,
    ) -> None:
        self._pool = pool
        self._replica = replica
        self._lease = timedelta(seconds=lease_seconds)
        self._app_step = timedelta(
            seconds=step_seconds(rate_limit_per_app, reach_seconds=APP_REACH_SECONDS)
        )
        self._step = timedelta(seconds=step_seconds(rate_limit_per_token))
        self._horizon = timedelta(seconds=min(HORIZON_SECONDS, lease_seconds / 4))
        self._managed = managed
        self._sealer = sealer or Sealer(())
        # Of an account of the last claim: no more are locked than the next is likely to have chunks
        # and rows for.
        self._chunks_each = self._videos_each = 1.0
        # What could not be sealed is left to `seal_all`: a claim that is late has missed its slots.
        self._left_unsealed: set[OpenId] = set()
        self._lateness = Lateness()
        #: Whether the last claim had to pass by accounts whose rows others held.
        self.passed_by = False
        #: Accounts whose lease something has undone in the last claim: a trigger, no doubt.
        self.unleased: Sequence[OpenId] = ()

    async def claim(
        self,
        chunk_budget: int,
        *,
        left_out: Sequence[OpenId] = (),
        only: Sequence[OpenId] | None = None,
        tried: Collection[str] | None = None,
    ) -> Sequence[Claim]:
        """Lease the due accounts that have waited longest, at most `chunk_budget` chunks in all.

        More may be due. `left_out` are not looked at; with `only`, no others are. With `tried` any
        of the others first, those that were well before the rest.
        """
        async with connection(self._pool) as taken:
            sent = monotonic()
            ahead = self._lateness.ahead_seconds(sent)
            rows = await taken.fetch(
                SQL_CLAIM if tried is None else SQL_PROBE,
                chunk_budget,
                self._replica,
                self._horizon,
                timedelta(seconds=APP_HORIZON_SECONDS),
                self._step,
                self._app_step,
                self._lease,
                ROWS_READ,
                self._managed,
                self._accounts_for(chunk_budget),
                left_out,
                only,
                timedelta(seconds=ahead),
                *(() if tried is None else (list(tried),)),
            )
            leased = [row for row in rows if row["open_id"] is not None]
            sealed: Mapping[str, int] = {}
            to_seal = [row for row in leased if row["open_id"] not in self._left_unsealed]
            with suppress(DatabaseUnavailable, *REFUSALS):  # they are leased all the same
                sealed = await seal_seen(taken, self._sealer, to_seal, self._leave_unsealed)
        claims = [self._claim(row, sealed.get(row["open_id"], 0), sent) for row in leased]
        if claims:
            slots_from = claims[0].time.monotonic_of(rows[0]["slots_from"])
            self._lateness.note(monotonic() - slots_from + ahead, monotonic())
            self._chunks_each = max(1.0, sum(claim.chunks for claim in claims) / len(claims))
            self._videos_each = max(1.0, sum(len(claim.videos) for claim in claims) / len(claims))
        self.passed_by = rows[0]["passed_by"]
        self.unleased = [
            OpenId(row["granted"]) for row in rows if row["granted"] and row["open_id"] is None
        ]
        return claims

    def _leave_unsealed(self, open_id: OpenId, _: Exception) -> None:
        self._left_unsealed.add(open_id)

    def _accounts_for(self, chunk_budget: int) -> int:
        return ceil(min(chunk_budget / self._chunks_each, ROWS_READ / self._videos_each))

    async def claimable(
        self,
        chunk_budget: int,
        left_out: Sequence[OpenId],
        tried: Collection[str] | None = None,
    ) -> Sequence[OpenId]:
        """The accounts that such a claim might try to lease now, and perhaps a few more."""
        values = self._horizon, self._managed, left_out
        async with connection(self._pool) as taken:
            rows = await (
                taken.fetch(SQL_CLAIMABLE, *values, self._accounts_for(chunk_budget))
                if tried is None
                else taken.fetch(SQL_PROBEABLE, *values, list(tried))
            )
        return [OpenId(row["open_id"]) for row in rows]

    async def release(self, releases: Sequence[Release]) -> Sequence[Released | None]:
        """Give leases back; None where the row is locked just now or the lease is over.

        Try those again until their lease has run out.
        """
        async with connection(self._pool) as taken:
            return await self._release(taken, SQL_RELEASE, releases)

    async def release_part(self, releases: Sequence[Release]) -> Sequence[Released | None]:
        """A part of what has met a lock."""
        return await self.release_alone(releases, PART_LOCK_SECONDS, APPLICATION_NAME)

    async def release_alone(
        self, releases: Sequence[Release], lock_seconds: float, name: str
    ) -> Sequence[Released | None]:
        """As `release`, under this session name: who holds what it waits for can be looked up.

        It waits for a lock for so long at most.
        """
        lock_timeout = f"{max(1, round(1000 * lock_seconds))}ms"
        async with connection(self._pool) as taken:
            return await self._release(taken, SQL_RELEASE_ALONE, releases, lock_timeout, name)

    async def _release(
        self, taken: "Pooled", statement: str, releases: Sequence[Release], *more: object
    ) -> Sequence[Released | None]:
        parks = [release.park for release in releases]
        samples = [(release.open_id, *sample) for release in releases for sample in release.samples]
        rows = await taken.fetch(
            statement,
            [release.open_id for release in releases],
            [release.lease_epoch for release in releases],
            [release.generation for release in releases],
            [release.failures for release in releases],
            [release.retry_seconds for release in releases],
            [release.pause_seconds for release in releases],
            [park and park.state for park in parks],
            [park and park.reason for park in parks],
            [release.answered for release in releases],
            [release.refused for release in releases],
            [release.token_retry_seconds for release in releases],
            [release.requests for release in releases],
            [release.unfinished for release in releases],
            [release.passed_over for release in releases],
            self._managed,
            ROWS_READ,
            *(list(zip(*samples, strict=True)) or [()] * 3),
            [release.quota_spent for release in releases],
            [release.isolated_reason for release in releases],
            *more,
        )
        released = {
            row["open_id"]: Released(row["parked"], row["wake_in_seconds"], row["isolated"])
            for row in rows
        }
        return [released.get(release.open_id) for release in releases]

    async def renew(
        self,
        claims: Sequence[Claim],
        refused: Callable[[Claim, Exception], None] = lambda *_: None,
    ) -> Sequence[float | None]:
        """Lengthen leases; how long each lasts now, None where it is lost or its row locked.

        `refused` hears of those that a trigger, a constraint or a lock stands in the way of. Where
        finding them takes long, some have None without a word: try those again.
        """
        rows = await in_parts(claims, self._renew, refused, SPLIT_SECONDS)
        left = {row["open_id"]: row["left"].total_seconds() for row in rows}
        return [left.get(claim.open_id) for claim in claims]

    async def _renew(self, claims: Sequence[Claim]) -> Sequence[Record]:
        async with connection(self._pool) as taken:
            rows: Sequence[Record] = await taken.fetch(
                SQL_RENEW,
                [claim.open_id for claim in claims],
                [claim.lease_epoch for claim in claims],
                self._lease,
            )
        return rows

    async def reserve(self, claim: Claim) -> datetime | None:
        """One more slot for an account under lease; None where it is lost or the row locked.

        With a limit for the app the account's own next slot must be near: the place among the app's
        slots is taken now.
        """
        async with connection(self._pool) as taken:
            ahead = self._lateness.ahead_seconds(monotonic())
            slot: datetime | None = await taken.fetchval(
                SQL_RESERVE,
                claim.open_id,
                claim.lease_epoch,
                self._step,
                self._app_step,
                timedelta(seconds=ahead),
            )
        if slot is not None:
            now = monotonic()
            self._lateness.note(now - claim.time.monotonic_of(slot) + ahead, now)
        return slot

    async def tell_answers(self, answers: Answers) -> bool:
        """Add what this replica saw answered to what is known of all; whether the app is limited.

        That is, whether a rate that was found for it is kept to; not where the app's row is gone.
        """
        told = " ".join(map(str, answers))
        async with connection(self._pool) as taken:
            limited: bool | None = await taken.fetchval(SQL_TELL_ANSWERS, self._replica, told)
        return bool(limited)

    async def limit_app(self, wished_seconds: float, *, shown: bool = True) -> AppLimit | None:
        """Slow all tokens down to what all replicas together saw answered.

        Nobody sends until there is room again, nor for `wished_seconds`. Not `shown` by 429s of
        this replica: a rate that was found without its answers is only put right upwards. None
        where nothing was changed, as where another replica was faster or the app's row is gone.
        """
        async with connection(self._pool) as taken:
            row = await taken.fetchrow(SQL_HEAR_ANSWERS)
            if row is None:
                return None
            heard = [
                Heard(age, [int(number) for number in answers.split()])
                for age, answers in zip(row["ages"], row["answers"], strict=True)
            ]
            limit = app_limit(heard, row["unheard"])
            if not shown and limit.rate_per_minute <= (row["rate"] or 0.0):
                return None
            pause = timedelta(seconds=max(limit.pause_seconds, wished_seconds))
            done = await taken.fetchval(SQL_LIMIT_APP, limit.rate_per_minute, pause, row["as_of"])
        return limit if done else None

    def _claim(self, row: Record, sealed: int, sent: float) -> Claim:
        try:
            access_token, readable = self._sealer.unseal(row["access_token"]), True
        except TokenUnreadable:
            access_token, readable = None, False
        return Claim(
            open_id=OpenId(row["open_id"]),
            access_token=access_token,
            lease_epoch=row["lease_epoch"],
            lease_expires_at=row["lease_expires_at"],
            failures=row["failures"],
            videos=_videos(row),
            ctids=dict(zip(row["video_ids"] or (), (row["ctids"] or "").split(), strict=True)),
            unfinished=row["unfinished"],
            app_limited=row["app_limited"],
            all_videos=row["all_videos"],
            isolated_since=row["isolated_since"],
            isolated_reason=row["isolated_reason"],
            first_slot=row["first_slot"],
            step_seconds=row["step_seconds"],
            # The transaction began when the statement arrived, a little after it was sent: slots
            # and the lease's end come early by that, which the headroom allows for.
            time=DatabaseTime(row["now"], sent),
            token=TokenStanding(
                generation=row["tokens_generation"] + sealed,
                renewable=row["renewable"],
                due=row["token_due"],
                dead=row["dead"],
                renewed=row["token_standing"] == "renewed",
                failures=row["token_failures"],
                readable=readable,
            ),
        )


def _videos(row: Record) -> Sequence[Video]:
    video_ids, due = row["video_ids"] or (), row["due_videos"]
    columns = row["expires_ats"] or (), row["misses"] or (), row["missing"] or ()
    is_due = [True] * due + [False] * (len(video_ids) - due)
    return list(map(Video._make, zip(video_ids, is_due, *columns, strict=True)))
