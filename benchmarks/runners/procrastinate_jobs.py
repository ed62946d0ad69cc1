"""Procrastinate: one job a chunk.

As its documentation recommends: a worker with many jobs at once, and its connector's pool with a
connection for each of them and one more, from which the jobs take theirs, too. Finished jobs are
deleted.
"""

import argparse
import logging

import aiohttp
import procrastinate
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

REFRESH = "refresh"
SQL_SAVE = f"""
UPDATE refresher.videos AS v
SET cover_image_url = w.cover_image_url, cover_expires_at = w.cover_expires_at, {ALSO_SET}
FROM unnest(%s::text[], %s::text[], %s::timestamptz[])
     AS w (video_id, cover_image_url, cover_expires_at)
WHERE v.open_id = %s AND v.video_id = w.video_id
"""


async def run(options: argparse.Namespace) -> None:
    connector = procrastinate.PsycopgConnector(
        conninfo=options.database_url, max_size=IN_FLIGHT + 1
    )
    app = procrastinate.App(connector=connector)
    limit = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with (
        app.open_async(),
        aiohttp.ClientSession(options.base_url, connector=limit) as session,
    ):
        async with connector.pool.connection() as connection:
            tokens = tokens_of(await (await connection.execute(SQL_TOKENS)).fetchall())

        async def refresh(open_id: str, video_ids: list[str]) -> None:
            body = {"filters": {"video_ids": video_ids}}
            async with session.post(QUERY, json=body, headers=bearer(tokens[open_id])) as answer:
                answer.raise_for_status()
                found = (await answer.json())["data"]["videos"]
            ids = [video["id"] for video in found]
            urls = [video["cover_image_url"] for video in found]
            values = (ids, urls, list(map(expiry_of, urls)), open_id)
            async with connector.pool.connection() as connection:
                await connection.execute(SQL_SAVE, values)

        app.task(name=REFRESH)(refresh)
        await app.run_worker_async(concurrency=IN_FLIGHT, wait=False, delete_jobs="always")


async def enqueue(options: argparse.Namespace) -> None:
    connector = procrastinate.PsycopgConnector(conninfo=options.database_url)
    async with procrastinate.App(connector=connector).open_async() as app:
        await app.schema_manager.apply_schema_async()
        async with connector.pool.connection() as connection:
            videos = await (await connection.execute(SQL_VIDEOS)).fetchall()
        jobs = [{"open_id": open_id, "video_ids": ids} for open_id, ids in chunks_of(videos)]
        await app.configure_task(REFRESH).batch_defer_async(*jobs)


if __name__ == "__main__":
    # It warns of an app in the main module, which would exist twice were it imported, too.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    chosen = arguments(__doc__)
    uvloop.run(enqueue(chosen) if chosen.enqueue else run(chosen))
