"""Writing many chunks' results at once: monotone, and only under the lease of their claim."""

from collections.abc import Sequence
from typing import Final

from refresher.domain.model import ChunkWrite
from refresher.postgres.database import Pool, available

# Only a later expiry changes a cover. A reserve is dropped with the first one: see the migration.
SQL_WRITE_BACK: Final = """
WITH writes AS MATERIALIZED (
    SELECT *
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[],
                $6::timestamptz[], $7::smallint[], $8::boolean[], $9::boolean[])
         AS w (open_id, lease_epoch, video_id, cover_image_url, cover_expires_at,
               due_at, misses, missing, gone)
    -- Sorted by key, as every writer does: no two can wait for each other in a ring.
    ORDER BY open_id, video_id
)
UPDATE refresher.videos AS v
SET cover_image_url = coalesce(w.cover_image_url, v.cover_image_url),
    cover_expires_at = coalesce(w.cover_expires_at, v.cover_expires_at),
    refreshed_at = CASE WHEN w.cover_image_url IS NULL THEN v.refreshed_at ELSE now() END,
    missing_since = CASE WHEN w.missing THEN coalesce(v.missing_since, now()) END,
    gone_at = CASE WHEN w.gone THEN coalesce(v.gone_at, now()) END,
    due_at = w.due_at,
    misses = w.misses,
    reserve = CASE WHEN w.cover_image_url IS NULL THEN v.reserve END
FROM writes AS w
JOIN refresher.accounts AS a ON a.open_id = w.open_id AND a.lease_epoch = w.lease_epoch
WHERE v.open_id = w.open_id
  AND v.video_id = w.video_id
  AND (w.cover_image_url IS NULL
       OR v.cover_image_url IS NULL
       OR v.cover_expires_at IS NULL
       OR v.cover_expires_at < w.cover_expires_at)
"""


async def write_back(pool: Pool, chunks: Sequence[ChunkWrite]) -> Sequence[None]:
    """Write the chunks' results in one statement. Raises `DatabaseUnavailable`: nothing written."""
    rows = [(chunk, write) for chunk in chunks for write in chunk.writes]
    with available():
        await pool.execute(
            SQL_WRITE_BACK,
            [chunk.open_id for chunk, _ in rows],
            [chunk.lease_epoch for chunk, _ in rows],
            [write.video_id for _, write in rows],
            [write.cover and write.cover.url for _, write in rows],
            [write.cover and write.cover.expires_at for _, write in rows],
            [write.due_at for _, write in rows],
            [write.misses for _, write in rows],
            [write.missing for _, write in rows],
            [write.gone for _, write in rows],
        )
    return [None] * len(chunks)
