"""Writing many chunks' results at once: monotone, and only under the lease of their claim."""

from collections.abc import Sequence
from typing import Final

from refresher.domain.model import ChunkWrite
from refresher.postgres.database import Pool, connection

# The lease's epoch is checked under a lock that a new claim of the account would wait for or skip;
# rows that an application holds locked are left due rather than waited for. Only a later expiry
# changes a cover. A reserve is dropped with the first one: see the migration.
SQL_WRITE_BACK: Final = """
WITH held AS MATERIALIZED (
    SELECT c.chunk, c.open_id
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS c (open_id, lease_epoch, chunk)
    JOIN refresher.accounts AS a ON a.open_id = c.open_id AND a.lease_epoch = c.lease_epoch
    ORDER BY c.open_id
    FOR KEY SHARE OF a SKIP LOCKED
),
writes AS MATERIALIZED (
    SELECT h.open_id, w.*
    FROM unnest($3::integer[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
                $8::smallint[], $9::boolean[], $10::boolean[], $11::text[])
         AS w (chunk, video_id, cover_image_url, cover_expires_at, due_at, misses, missing, gone,
               refusal)
    JOIN held AS h USING (chunk)
),
free AS MATERIALIZED (
    SELECT w.*
    FROM writes AS w JOIN refresher.videos AS v USING (open_id, video_id)
    WHERE w.cover_image_url IS NULL
       OR v.cover_image_url IS NULL
       OR v.cover_expires_at IS NULL
       OR v.cover_expires_at < w.cover_expires_at
    ORDER BY w.open_id, w.video_id
    FOR NO KEY UPDATE OF v SKIP LOCKED
),
written AS (
    UPDATE refresher.videos AS v
    SET cover_image_url = coalesce(w.cover_image_url, v.cover_image_url),
        cover_expires_at = coalesce(w.cover_expires_at, v.cover_expires_at),
        refreshed_at = CASE WHEN w.cover_image_url IS NULL THEN v.refreshed_at ELSE now() END,
        missing_since = CASE WHEN w.missing THEN coalesce(v.missing_since, now()) END,
        gone_at = CASE WHEN w.gone THEN coalesce(v.gone_at, now()) END,
        due_at = w.due_at,
        misses = w.misses,
        refusal = w.refusal,
        reserve = CASE WHEN w.cover_image_url IS NULL THEN v.reserve END
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
    rows = [(number, write) for number, chunk in enumerate(chunks, 1) for write in chunk.writes]
    async with connection(pool) as taken:
        written = await taken.fetch(
            SQL_WRITE_BACK,
            [chunk.open_id for chunk in chunks],
            [chunk.lease_epoch for chunk in chunks],
            [number for number, _ in rows],
            [write.video_id for _, write in rows],
            [write.cover and write.cover.url for _, write in rows],
            [write.cover and write.cover.expires_at for _, write in rows],
            [write.due_at for _, write in rows],
            [write.misses for _, write in rows],
            [write.missing for _, write in rows],
            [write.gone for _, write in rows],
            [write.refusal for _, write in rows],
        )
    videos = {row["chunk"]: row["videos"] for row in written}
    return [videos.get(number, 0) for number in range(1, len(chunks) + 1)]
