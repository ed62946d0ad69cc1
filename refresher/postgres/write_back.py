"""Writing many chunks' results at once: monotone, and only under the lease of their claim."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Final

from refresher.domain.errors import DatabaseBusy
from refresher.domain.model import ChunkWrite, Holder
from refresher.postgres.database import APPLICATION_NAME, Pool, connection
from refresher.postgres.locks import holder

#: How long the trigger of one part of a batch may wait, while the others wait for their turn.
LOCK_SECONDS: Final = 0.05

# The lease's epoch is checked under a lock that a new claim of the account would wait for or skip.
# LATERAL, so that the account is looked up by its key whatever the planner thinks of the numbers;
# with the epoch compared outside it expects few writes, and looks their rows up one by one as well.
HELD: Final = """
held AS MATERIALIZED (
    SELECT r.*
    FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::text[], $5::text[], $6::text[],
                $7::timestamptz[], $8::timestamptz[], $9::smallint[], $10::boolean[],
                $11::boolean[], $12::text[])
         AS r (open_id, lease_epoch, number, video_ids, urls, ctids, due_at, cover_expires_at,
               misses, missing, gone, refusal)
    CROSS JOIN LATERAL (
        SELECT lease_epoch FROM refresher.accounts AS a
        WHERE a.open_id = r.open_id
        FOR KEY SHARE SKIP LOCKED
    ) AS a
    WHERE a.lease_epoch = r.lease_epoch
)
"""
#: A row for each video of what is `held`.
WRITES: Final = """
SELECT h.open_id, h.number, h.due_at, h.cover_expires_at, h.misses, h.missing, h.gone, h.refusal,
       w.*
FROM {held} AS h
CROSS JOIN LATERAL unnest(string_to_array(h.video_ids, $13), string_to_array(h.urls, $13),
                          string_to_array(h.ctids, ' ')::tid[])
     AS w (video_id, cover_image_url, ctid)
-- Each row is complete before it is looked for, so in its partition only.
OFFSET 0
"""
# Only a later expiry changes a cover. A reserve is dropped with the first one: see the migration.
IS_NEWER: Final = """
(w.cover_image_url IS NULL
 OR v.cover_image_url IS NULL
 OR v.cover_expires_at IS NULL
 OR v.cover_expires_at < w.cover_expires_at)
"""
SET: Final = """
SET cover_image_url = coalesce(w.cover_image_url, v.cover_image_url),
    cover_expires_at = coalesce(w.cover_expires_at, v.cover_expires_at),
    refreshed_at = CASE WHEN w.cover_image_url IS NULL THEN v.refreshed_at ELSE now() END,
    missing_since = CASE WHEN w.missing THEN coalesce(v.missing_since, now()) END,
    gone_at = CASE WHEN w.gone THEN coalesce(v.gone_at, now()) END,
    due_at = w.due_at,
    misses = w.misses,
    refusal = w.refusal,
    reserve = CASE WHEN w.cover_image_url IS NULL THEN v.reserve END
"""

# Rows are written where the claim has read them: to look them up by their key costs a quarter of
# the server's CPU time for a write-back. One that was changed or moved meanwhile is not there; what
# may be there instead is told by its key, by which the rest of its writes is looked up.
#
# Rows are locked by being written, so a row that an application holds fails the statement, sooner
# than its own look for a deadlock: then the other one is for it. To lock rows first, always, costs
# a third of the server's CPU time for a write-back and a quarter of its WAL; to sort them first a
# fifth of the time.
SQL_WRITE_BACK: Final = f"""
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '100ms', true)
),
{HELD},
in_place AS (
    UPDATE refresher.videos AS v
    {SET}
    FROM ({WRITES.format(held="held")}) AS w
    WHERE v.ctid = w.ctid AND v.open_id = w.open_id AND v.video_id = w.video_id
      AND {IS_NEWER}
      AND (SELECT count(*) FROM impatient) > 0
    RETURNING w.number, w.video_id
),
short AS MATERIALIZED (
    SELECT *
    FROM held
    -- Hashed, and neither side is ever NULL; a join would be looped over, as the planner expects
    -- one row of each.
    WHERE (number, cardinality(string_to_array(video_ids, $13))::bigint) NOT IN (
        SELECT number, count(*) FROM in_place GROUP BY number
    )
),
moved AS (
    UPDATE refresher.videos AS v
    {SET}
    FROM ({WRITES.format(held="short")}) AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
      AND {IS_NEWER}
      -- A statement may not write a row twice.
      AND NOT EXISTS (
          SELECT FROM in_place AS i WHERE i.number = w.number AND i.video_id = w.video_id
      )
    RETURNING w.number
)
SELECT number, count(*) AS videos
FROM (SELECT number FROM in_place UNION ALL SELECT number FROM moved) AS written
GROUP BY number
"""

# Rows that an application holds locked are left due rather than waited for. What a trigger of an
# application waits for is waited for as long as it is told, and under a name of this statement's
# own, by which another session finds out who holds it, whatever pooler lies between.
SQL_WRITE_BACK_FREE_ROWS: Final = f"""
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', $14, true), set_config('application_name', $15, true)
),
{HELD},
free AS MATERIALIZED (
    SELECT w.*
    FROM ({WRITES.format(held="held")}) AS w JOIN refresher.videos AS v USING (open_id, video_id)
    WHERE {IS_NEWER}
    FOR NO KEY UPDATE OF v SKIP LOCKED
),
written AS (
    UPDATE refresher.videos AS v
    {SET}
    FROM free AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
      AND (SELECT count(*) FROM impatient) > 0
    RETURNING w.number
)
SELECT number, count(*) AS videos FROM written GROUP BY number
"""


async def write_back(pool: Pool, chunks: Sequence[ChunkWrite]) -> Sequence[int]:
    """Write the chunks' results in one statement; how many of each chunk's writes took effect.

    Raises `DatabaseUnavailable`: nothing written; `DatabaseBusy` where a trigger waits for a lock.
    """
    try:
        return await _write(pool, SQL_WRITE_BACK, chunks)
    except DatabaseBusy:
        return await write_free_rows(pool, chunks)


async def write_free_rows(
    pool: Pool,
    chunks: Sequence[ChunkWrite],
    lock_seconds: float = LOCK_SECONDS,
    name: str = APPLICATION_NAME,
) -> Sequence[int]:
    """As `write_back`, for where locks are met: what a trigger waits for so long at most.

    `name` is the session's application_name meanwhile.
    """
    lock_timeout = f"{max(1, round(1000 * lock_seconds))}ms"
    return await _write(pool, SQL_WRITE_BACK_FREE_ROWS, chunks, lock_timeout, name)


class WriteBack:
    """Writing results back, for one replica. Raises `DatabaseUnavailable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, chunks: Sequence[ChunkWrite]) -> Sequence[int]:
        """As `write_back`."""
        return await write_back(self._pool, chunks)

    async def write_part(self, chunks: Sequence[ChunkWrite]) -> Sequence[int]:
        """A part of what has met a lock."""
        return await write_free_rows(self._pool, chunks)

    async def write_alone(
        self, chunks: Sequence[ChunkWrite], lock_seconds: float, name: str
    ) -> Sequence[int]:
        """As `write_free_rows`."""
        return await write_free_rows(self._pool, chunks, lock_seconds, name)

    async def holder(self, name: str) -> Holder | None:
        """Who holds what the session of this name waits for."""
        return await holder(self._pool, name)


async def _write(
    pool: Pool, statement: str, chunks: Sequence[ChunkWrite], *more: object
) -> Sequence[int]:
    async with connection(pool) as taken:
        rows = await taken.fetch(statement, *_arguments(chunks), *more)
    written = Counter({row["number"]: row["videos"] for row in rows})
    numbers = iter(range(1, sum(len(chunk.writes) for chunk in chunks) + 1))
    return [sum(written[next(numbers)] for _ in chunk.writes) for chunk in chunks]


def _arguments(chunks: Sequence[ChunkWrite]) -> Sequence[object]:
    """A row for what is written alike, numbered, its IDs, URLs and ctids each as one text.

    To encode an array of them takes the driver five times as long.
    """
    ids = "".join(chain.from_iterable(w.video_ids for chunk in chunks for w in chunk.writes))
    # No URL holds one of these; an ID may hold any, but not all of them.
    separators = map(chr, chain(range(1, ord("!")), range(ord("~") + 1, 0xD800)))
    separator = next(character for character in separators if character not in ids)
    writes = ((chunk, write) for chunk in chunks for write in chunk.writes)
    rows = [
        (
            chunk.open_id,
            chunk.lease_epoch,
            number,
            separator.join(write.video_ids),
            separator.join(write.urls) if write.urls else None,
            " ".join(map(chunk.ctids.__getitem__, write.video_ids)) if chunk.ctids else None,
            write.due_at,
            write.cover_expires_at,
            write.misses,
            write.missing,
            write.gone,
            write.refusal,
        )
        for number, (chunk, write) in enumerate(writes, 1)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * 12
    return [*columns, separator]
