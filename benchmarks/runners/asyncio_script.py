"""An asyncio script: all chunks gathered under a semaphore, executemany for each."""

import argparse
import asyncio

import aiohttp
import asyncpg
import uvloop

from benchmarks.runners.job import (
    ALSO_SET,
    IN_FLIGHT,
    QUERY,
    SQL_TOKENS,
    SQL_VIDEOS,
    arguments,
    bearer,
    chunks_of,
    expiry_of,
    tokens_of,
)

SQL_SAVE = f"""
UPDATE refresher.videos
SET cover_image_url = $3, cover_expires_at = $4, {ALSO_SET}
WHERE open_id = $1 AND video_id = $2
"""


async def run(options: argparse.Namespace) -> None:
    turn = asyncio.Semaphore(IN_FLIGHT)
    async with (
        asyncpg.create_pool(options.database_url) as pool,
        aiohttp.ClientSession(options.base_url) as session,
    ):
        tokens = tokens_of(await pool.fetch(SQL_TOKENS))
        videos = [(row["open_id"], row["video_id"]) for row in await pool.fetch(SQL_VIDEOS)]

        async def refresh(open_id: str, video_ids: list[str]) -> None:
            async with turn:
                body = {"filters": {"video_ids": video_ids}}
                headers = bearer(tokens[open_id])
                async with session.post(QUERY, json=body, headers=headers) as answer:
                    answer.raise_for_status()
                    found = (await answer.json())["data"]["videos"]
                covers = [(video["id"], video["cover_image_url"]) for video in found]
                rows = [(open_id, video_id, url, expiry_of(url)) for video_id, url in covers]
                await pool.executemany(SQL_SAVE, rows)

        await asyncio.gather(*(refresh(*chunk) for chunk in chunks_of(videos)))


if __name__ == "__main__":
    uvloop.run(run(arguments(__doc__)))
