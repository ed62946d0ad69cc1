"""A fleet as years of use leave it: accounts of very unequal size, their rows all over the table.

Sizes follow Zipf's law, cut off at the largest account there is: of 10,000,000 videos of 100,000
accounts 21 have 50,000 videos each, a tenth of all, and half have 20 or fewer. A smaller fleet
takes every so-manieth account of a larger one, so both have the same shape. Every cover is valid
and lives a day; accounts come up for refreshing evenly over it.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final

from benchmarks.world import Server, settle
from refresher.postgres.migrate import migrate

#: A cover is due so long before it expires.
LEAD: Final = timedelta(minutes=90)
LEAD_SQL: Final = "interval '90 minutes'"
#: What a claim takes of one account in a slot's horizon: refreshed together, due together.
DUE_TOGETHER: Final = 1_000
LOADERS: Final = 2

CREATE_PLAN: Final = """
CREATE UNLOGGED TABLE public.fleet (
    number integer, open_id text, videos integer, due_at timestamptz
)
"""
PLAN: Final = """
INSERT INTO public.fleet
SELECT number, '-000' || md5(number::text), videos, now() + random() * interval '24 hours'
FROM unnest($1::integer[]) WITH ORDINALITY AS given (videos, number)
"""
# The order in which applications inserted them, as far as a reader of one account is concerned.
SCATTER: Final = """
CREATE UNLOGGED TABLE public.scattered AS
SELECT number, video::integer
FROM public.fleet CROSS JOIN LATERAL generate_series(1, videos) AS video
ORDER BY random()
"""
ADD_ACCOUNTS: Final = f"""
INSERT INTO refresher.accounts (open_id, access_token, wake_at, earliest_due_at, videos, valid,
                                valid_until)
SELECT open_id, 'act.' || md5(open_id) || md5(open_id || 'x'), due_at, due_at, videos, videos,
       due_at + {LEAD_SQL}
FROM public.fleet
ORDER BY random()
"""
# As a refresh leaves a video, with a URL as long as the real ones. A large account is refreshed
# part by part, a slot's horizon after the other.
ADD_VIDEOS: Final = f"""
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, refreshed_at,
                              due_at, reserve)
SELECT a.open_id,
       (7000000000000000000 + 100000 * a.number::bigint + s.video)::text,
       'https://p16-sign.tiktokcdn-us.com/obj/' || md5(a.number || ' ' || s.video)
           || '?x-expires=' || extract(epoch FROM part.due_at + {LEAD_SQL})::bigint
           || '&x-signature=' || repeat(md5(s.video::text), 7)
           || '&idc=useast5&s=TIKTOK_FOR_DEVELOPER',
       part.due_at + {LEAD_SQL}, now(), part.due_at, NULL
FROM public.scattered AS s
JOIN public.fleet AS a USING (number)
CROSS JOIN LATERAL (
    SELECT a.due_at + (s.video - 1) / {DUE_TOGETHER} * interval '5 seconds' AS due_at
) AS part
WHERE s.ctid >= format('(%s,0)', $1::integer)::tid AND s.ctid < format('(%s,0)', $2::integer)::tid
"""

# Whatever would be due within the hour is given a new day, so that nothing is for that long.
REST: Final = f"""
WITH rested AS (
    UPDATE refresher.accounts AS a
    SET wake_at = later.due_at,
        earliest_due_at = later.due_at,
        valid = videos,
        expired = 0,
        valid_until = later.due_at + {LEAD_SQL},
        lease_owner = NULL,
        lease_expires_at = NULL,
        read_to = '',
        next_slot_at = '-infinity'
    FROM (
        SELECT open_id, now() + interval '1 hour' + random() * interval '23 hours' AS due_at
        FROM refresher.accounts
        WHERE least(wake_at, earliest_due_at) < now() + interval '1 hour'
    ) AS later
    WHERE a.open_id = later.open_id
    RETURNING a.open_id, a.earliest_due_at
)
UPDATE refresher.videos AS v
SET due_at = r.earliest_due_at, cover_expires_at = r.earliest_due_at + {LEAD_SQL},
    refreshed_at = now()
FROM rested AS r
WHERE v.open_id = r.open_id
"""
# Of every size as many in proportion; they have been due for up to half an hour.
FALL_DUE: Final = """
WITH fallen AS (
    UPDATE refresher.accounts AS a
    SET wake_at = earlier.due_at,
        earliest_due_at = earlier.due_at,
        valid_until = least(valid_until, earlier.due_at + $2::interval),
        next_slot_at = '-infinity'
    FROM (
        SELECT open_id, now() - random() * interval '30 minutes' AS due_at
        FROM (
            SELECT open_id, row_number() OVER (ORDER BY videos DESC, open_id) AS place
            FROM refresher.accounts
        ) AS ordered
        WHERE place % $1 = $1 / 2
    ) AS earlier
    WHERE a.open_id = earlier.open_id
    RETURNING a.open_id, a.earliest_due_at
)
UPDATE refresher.videos AS v
SET due_at = f.earliest_due_at,
    cover_expires_at = least(cover_expires_at, f.earliest_due_at + $2::interval),
    refreshed_at = now()
FROM fallen AS f
WHERE v.open_id = f.open_id
"""


def thinned(fleet: Sequence[int], keep_one_in: int) -> Sequence[int]:
    """A smaller fleet of the same shape."""
    return fleet[keep_one_in // 2 :: keep_one_in]


async def load(server: Server, database: str, fleet: Sequence[int]) -> None:
    """A new, migrated database with the fleet in it."""
    await server.copy_database("template0", database)
    await migrate(server.url(database))
    async with server.connected(database) as connection:
        await connection.execute(CREATE_PLAN)
        await connection.execute(PLAN, fleet)
        await connection.execute("SET work_mem = '256MB'; ANALYZE public.fleet")
        await connection.execute(SCATTER)
        await connection.execute(ADD_ACCOUNTS)
        pages = await connection.fetchval("SELECT pg_relation_size('public.scattered') / 8192")
        bounds = [pages * part // LOADERS for part in range(LOADERS)] + [pages + 1]
        await connection.execute("ALTER TABLE refresher.videos DISABLE TRIGGER videos_replicated")
        await asyncio.gather(
            *(_add_videos(server, database, first, last) for first, last in pairwise(bounds))
        )
        await connection.execute(
            "ALTER TABLE refresher.videos ENABLE REPLICA TRIGGER videos_replicated"
        )
        await connection.execute("DROP TABLE public.scattered, public.fleet")
        await settle(connection)


async def _add_videos(server: Server, database: str, first_page: int, last_page: int) -> None:
    async with server.connected(database) as connection:
        # Without the triggers and the foreign key's check: all is right by construction.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET synchronous_commit = off; SET enable_mergejoin = off")
        await connection.execute(ADD_VIDEOS, first_page, last_page)


async def rest(connection: Any) -> None:
    """Nothing is due for an hour."""
    await connection.execute(REST)


async def fall_due(connection: Any, one_in: int, *, left: timedelta = LEAD) -> int:
    """Let one account in so many fall due with all its videos; how many videos that are.

    Their covers expire so long after they fell due.
    """
    updated: str = await connection.execute(FALL_DUE, one_in, left)
    return int(updated.rsplit(maxsplit=1)[-1])
