"""Writes the results of many chunks at once, each only under the lease of its claim."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from refresher.domain.errors import DatabaseBusy
from refresher.domain.model import ChunkWrite, Holder
from refresher.postgres.database import APPLICATION_NAME, Pool, acquired
from refresher.postgres.locks import holder
from refresher.postgres.statements import Statement, statement

#: How long the trigger of one part of a batch may wait for a lock; the other parts wait meanwhile.
LOCK_SECONDS: Final = 0.05

WRITE_BACK: Final = statement("write_back")
WRITE_BACK_FREE_ROWS: Final = statement("write_back_free_rows")
#: The parameters of both that have a value for each row, in the order of `_values`.
COLUMNS: Final = (
    "open_ids",
    "lease_epochs",
    "numbers",
    "video_ids",
    "urls",
    "ctids",
    "due_at",
    "cover_expires_at",
    "misses",
    "missing",
    "gone",
    "refusals",
)


async def write_back(pool: Pool, chunks: Sequence[ChunkWrite]) -> Sequence[int]:
    """Write the chunks' results; returns for each chunk how many videos were written.

    Raises `DatabaseUnavailable`, and `DatabaseBusy` if a trigger waits for a lock: then nothing was
    written.
    """
    try:
        return await _write(pool, WRITE_BACK, chunks)
    except DatabaseBusy:
        return await write_free_rows(pool, chunks)


async def write_free_rows(
    pool: Pool,
    chunks: Sequence[ChunkWrite],
    lock_seconds: float = LOCK_SECONDS,
    name: str = APPLICATION_NAME,
) -> Sequence[int]:
    """As `write_back`, but locked rows are skipped, and a trigger may wait for `lock_seconds`.

    The session has this name meanwhile, so that `holder` finds out who holds the lock.
    """
    lock_timeout = f"{max(1, round(1000 * lock_seconds))}ms"
    return await _write(
        pool, WRITE_BACK_FREE_ROWS, chunks, lock_timeout=lock_timeout, session_name=name
    )


class WriteBack:
    """Writes results back for one replica. Raises `DatabaseUnavailable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, chunks: Sequence[ChunkWrite]) -> Sequence[int]:
        """As `write_back`."""
        return await write_back(self._pool, chunks)

    async def write_part(self, chunks: Sequence[ChunkWrite]) -> Sequence[int]:
        """As `write_free_rows`, for a part of chunks that have met a lock."""
        return await write_free_rows(self._pool, chunks)

    async def write_alone(
        self, chunks: Sequence[ChunkWrite], lock_seconds: float, name: str
    ) -> Sequence[int]:
        """As `write_free_rows`, for chunks of one account that waits for a lock."""
        return await write_free_rows(self._pool, chunks, lock_seconds, name)

    async def holder(self, name: str) -> Holder | None:
        """Who holds the lock that the session of this name waits for; None if it waits for none."""
        return await holder(self._pool, name)


async def _write(
    pool: Pool, statement: Statement, chunks: Sequence[ChunkWrite], **more: object
) -> Sequence[int]:
    async with acquired(pool) as connection:
        rows = await connection.fetch(*statement(**_values(chunks), **more))
    written = Counter({row["number"]: row["videos"] for row in rows})
    numbers = iter(range(1, sum(len(chunk.writes) for chunk in chunks) + 1))
    return [sum(written[next(numbers)] for _ in chunk.writes) for chunk in chunks]


def _values(chunks: Sequence[ChunkWrite]) -> Mapping[str, object]:
    # A row for each write. Its IDs, URLs and ctids are one text each: to encode arrays takes the
    # driver five times as long.
    ids = "".join(chain.from_iterable(w.video_ids for chunk in chunks for w in chunk.writes))
    # No URL contains one of these. An ID may contain any of them, but not all.
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
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    return dict(zip(COLUMNS, columns, strict=True)) | {"separator": separator}
