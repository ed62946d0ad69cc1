"""Writing many chunks' results at once: monotone, and only under the lease of their claim."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Final

from refresher.domain.errors import DatabaseBusy
from refresher.domain.model import ChunkWrite
from refresher.postgres.database import Pool, connection, transaction

if TYPE_CHECKING:
    from refresher.postgres.database import Pooled

# The lease's epoch is checked under a lock that a new claim of the account would wait for or skip.
# LATERAL, so that the account is looked up by its key whatever the planner thinks of the numbers;
# with the epoch compared outside it expects few writes, and looks their rows up one by one as well.
HELD_AND_WRITES: Final = """
held AS MATERIALIZED (
    SELECT r.*
    FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::text[], $5::text[], $6::text[],
                $7::timestamptz[], $8::timestamptz[], $9::smallint[], $10::boolean[],
                $11::boolean[], $12::text[])
         AS r (open_id, lease_epoch, chunk, video_ids, urls, ctids, due_at, cover_expires_at,
               misses, missing, gone, refusal)
    CROSS JOIN LATERAL (
        SELECT lease_epoch FROM refresher.accounts AS a
        WHERE a.open_id = r.open_id
        FOR KEY SHARE SKIP LOCKED
    ) AS a
    WHERE a.lease_epoch = r.lease_epoch
),
writes AS (
    SELECT h.open_id, h.chunk, h.due_at, h.cover_expires_at, h.misses, h.missing, h.gone,
           h.refusal, w.*
    FROM held AS h
    CROSS JOIN LATERAL unnest(string_to_array(h.video_ids, $13), string_to_array(h.urls, $13),
                              string_to_array(h.ctids, ' ')::tid[])
         AS w (video_id, cover_image_url, ctid)
    -- Each row is complete before it is looked for, so in its partition only.
    OFFSET 0
)
"""
# Only a later expiry changes a cover; a miss that is stored already is told by its `due_at`.
CHANGES: Final = """
CASE WHEN w.cover_image_url IS NULL THEN v.due_at <> w.due_at
     ELSE v.cover_image_url IS NULL
          OR v.cover_expires_at IS NULL
          OR v.cover_expires_at < w.cover_expires_at END
"""
# The reserve is dropped with the first cover: see the migration.
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

# Rows are looked for where the claim has read them: to look them up by their key costs a quarter of
# the server's CPU time for a write-back. One that was changed or moved meanwhile is not there; what
# may be there instead is told by its key. Rows are locked by being written, so a row that an
# application holds fails the statement, sooner than its own look for a deadlock: then the other one
# is for it.
SQL_WRITE_BACK: Final = f"""
WITH impatient AS MATERIALIZED (
    SELECT set_config('lock_timeout', '100ms', true)
),
{HELD_AND_WRITES},
written AS (
    UPDATE refresher.videos AS v
    {SET}
    FROM writes AS w
    WHERE v.ctid = w.ctid AND v.open_id = w.open_id AND v.video_id = w.video_id
      AND {CHANGES}
      AND (SELECT count(*) FROM impatient) > 0
    RETURNING w.chunk
)
SELECT chunk, count(*) AS videos FROM written GROUP BY chunk
"""

# For chunks that the first statement has not wholly written. Rows that an application holds locked
# are left due rather than waited for. What is stored already, by the first statement or by an
# earlier try whose commit was not heard of, counts as written.
SQL_WRITE_BACK_FREE_ROWS: Final = f"""
WITH {HELD_AND_WRITES},
free AS MATERIALIZED (
    SELECT w.*
    FROM writes AS w JOIN refresher.videos AS v USING (open_id, video_id)
    WHERE {CHANGES}
    FOR NO KEY UPDATE OF v SKIP LOCKED
),
written AS (
    UPDATE refresher.videos AS v
    {SET}
    FROM free AS w
    WHERE v.open_id = w.open_id AND v.video_id = w.video_id
    RETURNING w.chunk
),
stored AS (
    SELECT chunk FROM written
    UNION ALL
    SELECT w.chunk
    FROM writes AS w JOIN refresher.videos AS v USING (open_id, video_id)
    WHERE v.due_at = w.due_at AND NOT {CHANGES}
)
SELECT chunk, count(*) AS videos FROM stored GROUP BY chunk
"""


async def write_back(pool: Pool, chunks: Sequence[ChunkWrite]) -> Sequence[int]:
    """Write the chunks' results, each chunk's in one transaction; how many of each are stored.

    Raises `DatabaseUnavailable`: nothing written, or written and not heard of.
    """
    with suppress(DatabaseBusy):
        async with connection(pool) as taken, transaction(taken):
            stored = await _write(taken, SQL_WRITE_BACK, chunks)
            short = [number for number, chunk in enumerate(chunks) if stored[number] < chunk.videos]
            if short:
                rest = [chunks[number] for number in short]
                in_all = await _write(taken, SQL_WRITE_BACK_FREE_ROWS, rest)
                for number, videos in zip(short, in_all, strict=True):
                    stored[number] = videos
            return stored
    async with connection(pool) as taken:
        return await _write(taken, SQL_WRITE_BACK_FREE_ROWS, chunks)


async def _write(taken: "Pooled", statement: str, chunks: Sequence[ChunkWrite]) -> list[int]:
    """How many rows of each chunk the statement says are stored."""
    rows = await taken.fetch(statement, *_arguments(chunks))
    videos = {row["chunk"]: row["videos"] for row in rows}
    return [videos.get(number, 0) for number in range(1, len(chunks) + 1)]


def _arguments(chunks: Sequence[ChunkWrite]) -> Sequence[object]:
    """A row for what is written alike, its IDs, URLs and ctids each as one text.

    To encode an array of them takes the driver five times as long.
    """
    ids = "".join(chain.from_iterable(w.video_ids for chunk in chunks for w in chunk.writes))
    # No URL holds one of these; an ID may hold any, but not all of them.
    separators = map(chr, chain(range(1, ord("!")), range(ord("~") + 1, 0xD800)))
    separator = next(character for character in separators if character not in ids)
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
        for number, chunk in enumerate(chunks, 1)
        for write in chunk.writes
    ]
    columns = list(zip(*rows, strict=True)) or [()] * 12
    return [*columns, separator]
