"""Writing many chunks' results at once: monotone, and only under the lease of their claim."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from refresher.domain.errors import DatabaseBusy
from refresher.domain.model import ChunkWrite, Holder
from refresher.postgres.database import APPLICATION_NAME, Pool, acquired
from refresher.postgres.locks import holder
from refresher.postgres.statements import Statement, statement

#: How long the trigger of one part of a batch may wait, while the others wait for their turn.
LOCK_SECONDS: Final = 0.05

WRITE_BACK: Final = statement("write_back")
WRITE_BACK_FREE_ROWS: Final = statement("write_back_free_rows")
#: The parameters of both with a value for each row, in the order in which `_values` makes them.
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
    """Write the chunks' results in one statement; how many of each chunk's writes took effect.

    Raises `DatabaseUnavailable`: nothing written; `DatabaseBusy` where a trigger waits for a lock.
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
    """As `write_back`, for where locks are met: what a trigger waits for so long at most.

    `name` is the session's application_name meanwhile.
    """
    lock_timeout = f"{max(1, round(1000 * lock_seconds))}ms"
    return await _write(
        pool, WRITE_BACK_FREE_ROWS, chunks, lock_timeout=lock_timeout, session_name=name
    )


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
    pool: Pool, statement: Statement, chunks: Sequence[ChunkWrite], **more: object
) -> Sequence[int]:
    async with acquired(pool) as connection:
        rows = await connection.fetch(*statement(**_values(chunks), **more))
    written = Counter({row["number"]: row["videos"] for row in rows})
    numbers = iter(range(1, sum(len(chunk.writes) for chunk in chunks) + 1))
    return [sum(written[next(numbers)] for _ in chunk.writes) for chunk in chunks]


def _values(chunks: Sequence[ChunkWrite]) -> Mapping[str, object]:
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
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    return dict(zip(COLUMNS, columns, strict=True)) | {"separator": separator}
