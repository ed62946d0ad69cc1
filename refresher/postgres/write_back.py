"""Writing many chunks' results at once: monotone, and only under the lease of their claim."""

from collections.abc import Sequence
from itertools import chain, groupby
from typing import Final

from asyncpg import Record

from refresher.domain.errors import DatabaseBusy
from refresher.domain.model import ChunkWrite, Write
from refresher.postgres.database import Pool, connection

# The lease's epoch is checked under a lock that a new claim of the account would wait for or skip.
# Only a later expiry changes a cover. A reserve is dropped with the first one: see the migration.
HELD_AND_WRITES: Final = """
held AS MATERIALIZED (
    SELECT r.*
    FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::timestamptz[], $5::timestamptz[],
                $6::smallint[], $7::boolean[], $8::boolean[], $9::text[]) WITH ORDINALITY
         AS r (open_id, lease_epoch, chunk, due_at, cover_expires_at, misses, missing, gone,
               refusal, run)
    JOIN refresher.accounts AS a ON a.open_id = r.open_id AND a.lease_epoch = r.lease_epoch
    ORDER BY r.open_id
    FOR KEY SHARE OF a SKIP LOCKED
),
writes AS MATERIALIZED (
    SELECT h.*, w.video_id, w.cover_image_url
    FROM unnest($10::integer[], $11::text[], $12::text[]) AS w (run, video_id, cover_image_url)
    JOIN held AS h USING (run)
    ORDER BY h.open_id COLLATE "C", w.video_id COLLATE "C"
)
"""
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

# Rows are locked by being written, so a row that an application holds fails the statement, sooner
# than a deadlock could be found: then the other one is for it. To lock rows first, always, costs
# a third of the server's CPU time for a write-back and a quarter of its WAL.
SQL_WRITE_BACK: Final = f"""
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '100ms', true)
),
{HELD_AND_WRITES},
written AS (
    UPDATE refresher.videos AS v
    {SET}
    FROM writes AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
      AND {IS_NEWER}
      AND (SELECT count(*) FROM impatient) > 0
    RETURNING w.chunk
)
SELECT chunk, count(*) AS videos FROM written GROUP BY chunk
"""

# Rows that an application holds locked are left due rather than waited for.
SQL_WRITE_BACK_FREE_ROWS: Final = f"""
WITH {HELD_AND_WRITES},
free AS MATERIALIZED (
    SELECT w.*
    FROM writes AS w JOIN refresher.videos AS v USING (open_id, video_id)
    WHERE {IS_NEWER}
    ORDER BY w.open_id COLLATE "C", w.video_id COLLATE "C"
    FOR NO KEY UPDATE OF v SKIP LOCKED
),
written AS (
    UPDATE refresher.videos AS v
    {SET}
    FROM free AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
    RETURNING w.chunk
)
SELECT chunk, count(*) AS videos FROM written GROUP BY chunk
"""


async def write_back(pool: Pool, chunks: Sequence[ChunkWrite]) -> Sequence[int]:
    """Write the chunks' results in one statement; how many of each chunk's writes took effect.

    Raises `DatabaseUnavailable`: nothing written.
    """
    arrays = _arrays(chunks)
    try:
        written = await _fetch(pool, SQL_WRITE_BACK, arrays)
    except DatabaseBusy:
        written = await _fetch(pool, SQL_WRITE_BACK_FREE_ROWS, arrays)
    videos = {row["chunk"]: row["videos"] for row in written}
    return [videos.get(number, 0) for number in range(1, len(chunks) + 1)]


async def _fetch(pool: Pool, statement: str, arrays: Sequence[object]) -> Sequence[Record]:
    async with connection(pool) as taken:
        return await taken.fetch(statement, *arrays)


def _arrays(chunks: Sequence[ChunkWrite]) -> Sequence[Sequence[object]]:
    """What is the same for a run of videos is sent once: a third less to encode."""
    runs: list[tuple[object, ...]] = []
    videos: list[tuple[int, str, str | None]] = []
    for number, chunk in enumerate(chunks, 1):
        for same, writes in groupby(chunk.writes, key=_all_but_id_and_url):
            runs.append((chunk.open_id, chunk.lease_epoch, number, *same))
            run = len(runs)
            videos += [(run, write.video_id, write.cover and write.cover.url) for write in writes]
    columns = zip(*runs, strict=True), zip(*videos, strict=True)
    return list(chain(*columns)) or [()] * 12


def _all_but_id_and_url(write: Write) -> tuple[object, ...]:
    _, due_at, cover, *marks = write
    return (due_at, cover and cover.expires_at, *marks)
