"""A bare pipeline without any care, the upper bound: claim, query, bulk update, nothing else.

The same libraries and tables as the refresher; no leases, no slots, no release, no look at errors,
no logs.
"""

import argparse
import asyncio
from datetime import UTC, datetime

import aiohttp
import asyncpg
import msgspec
import uvloop
from yarl import URL

from benchmarks.runners.job import ALSO_SET, CHUNK, IN_FLIGHT, QUERY, arguments, bearer

CLAIMED_ACCOUNTS = 50
ROWS = 1000
#: While one statement is being run, the next is sent.
WRITES = 3

SQL_CLAIM = """
UPDATE refresher.accounts AS a
SET wake_at = 'infinity'
WHERE open_id IN (
    SELECT open_id FROM refresher.accounts
    WHERE state = 'active' AND wake_at <= now()
    ORDER BY wake_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING open_id, access_token,
          (SELECT array_agg(video_id) FROM refresher.videos AS v WHERE v.open_id = a.open_id)
"""
SQL_SAVE = f"""
UPDATE refresher.videos AS v
SET cover_image_url = w.cover_image_url, cover_expires_at = w.cover_expires_at, {ALSO_SET}
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
     AS w (open_id, video_id, cover_image_url, cover_expires_at)
WHERE v.open_id = w.open_id AND v.video_id = w.video_id
"""

Row = tuple[str, str, str, datetime]
Chunk = tuple[str, dict[str, str], list[str]]


class Video(msgspec.Struct):
    id: str
    cover_image_url: str


class Videos(msgspec.Struct):
    videos: list[Video]


class Answer(msgspec.Struct):
    data: Videos


decode = msgspec.json.Decoder(Answer).decode


def row_of(open_id: str, video: Video) -> Row:
    url = video.cover_image_url
    place = url.index("x-expires=") + len("x-expires=")
    expires_at = datetime.fromtimestamp(int(url[place : place + 10]), UTC)
    return open_id, video.id, url, expires_at


async def run(options: argparse.Namespace) -> None:
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with (
        asyncpg.create_pool(options.database_url, min_size=WRITES + 1, reset=nothing) as pool,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        await pipeline(pool, session, URL(options.base_url + QUERY, encoded=True))


async def nothing(_: object) -> None:
    """Nothing here outlives its transaction, so there is nothing to reset."""


async def pipeline(
    pool: "asyncpg.Pool[asyncpg.Record]", session: aiohttp.ClientSession, url: URL
) -> None:
    # Bounded, so that claims keep just ahead of the asking.
    chunks: asyncio.Queue[Chunk | None] = asyncio.Queue(maxsize=2 * IN_FLIGHT)
    answered: list[Row] = []
    writing = asyncio.Semaphore(WRITES)

    async def save(rows: list[Row]) -> None:
        async with writing:
            await pool.execute(SQL_SAVE, *zip(*rows, strict=True))

    async def ask() -> None:
        while chunk := await chunks.get():
            open_id, headers, video_ids = chunk
            body = msgspec.json.encode({"filters": {"video_ids": video_ids}})
            async with session.post(url, data=body, headers=headers) as answer:
                found = decode(await answer.read())
            answered.extend([row_of(open_id, video) for video in found.data.videos])
            if len(answered) >= ROWS:
                rows = answered[:]
                answered.clear()
                await save(rows)

    await asyncio.gather(claim(pool, chunks), *(ask() for _ in range(IN_FLIGHT)))
    if answered:
        await save(answered)


async def claim(
    pool: "asyncpg.Pool[asyncpg.Record]", chunks: "asyncio.Queue[Chunk | None]"
) -> None:
    """All that is due, and None to each who waits for more."""
    while accounts := await pool.fetch(SQL_CLAIM, CLAIMED_ACCOUNTS):
        for open_id, token, video_ids in accounts:
            headers = bearer(token)
            for start in range(0, len(video_ids), CHUNK):
                await chunks.put((open_id, headers, video_ids[start : start + CHUNK]))
    for _ in range(IN_FLIGHT):
        await chunks.put(None)


if __name__ == "__main__":
    uvloop.run(run(arguments(__doc__)))
