"""PgQueuer: one job a chunk.

As its guide to performance recommends: an asyncpg connection of its own for the queue and a pool
for the jobs, a large batch, its autovacuum settings, `balanced` durability (only its log is
unlogged). No limit to the jobs at once, at which it would pause for a tenth of a second each time:
the HTTP session limits the requests in flight.
"""

import argparse
import json

import aiohttp
import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment
from pgqueuer.db import AsyncpgDriver
from pgqueuer.domain.settings import DBSettings, Durability
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from benchmarks.runners.job import (
    IN_FLIGHT,
    QUERY,
    SQL_SAVE_CHUNK,
    SQL_TOKENS,
    SQL_VIDEOS,
    arguments,
    bearer,
    chunks_of,
    expiry_of,
    tokens_of,
)

REFRESH = "refresh"
BATCH = 100


async def enqueue(options: argparse.Namespace) -> None:
    connection = await asyncpg.connect(options.database_url)
    settings = DBSettings(durability=Durability.balanced)
    queries = Queries(AsyncpgDriver(connection), qbe=QueryBuilderEnvironment(settings))
    await queries.install()
    await queries.optimize_autovacuum()
    videos = [(row["open_id"], row["video_id"]) for row in await connection.fetch(SQL_VIDEOS)]
    jobs = [json.dumps(chunk).encode() for chunk in chunks_of(videos)]
    await queries.enqueue([REFRESH] * len(jobs), jobs, [0] * len(jobs))
    await connection.close()


async def run(options: argparse.Namespace) -> None:
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with (
        asyncpg.create_pool(options.database_url) as pool,
        aiohttp.ClientSession(options.base_url, connector=connector) as session,
    ):
        tokens = tokens_of(await pool.fetch(SQL_TOKENS))
        connection = await asyncpg.connect(options.database_url)
        queue = PgQueuer(AsyncpgDriver(connection))

        async def refresh(job: Job) -> None:
            open_id, video_ids = json.loads(job.payload)
            body = {"filters": {"video_ids": video_ids}}
            async with session.post(QUERY, json=body, headers=bearer(tokens[open_id])) as answer:
                answer.raise_for_status()
                found = (await answer.json())["data"]["videos"]
            ids = [video["id"] for video in found]
            urls = [video["cover_image_url"] for video in found]
            await pool.execute(SQL_SAVE_CHUNK, open_id, ids, urls, list(map(expiry_of, urls)))

        queue.entrypoint(REFRESH)(refresh)
        await queue.run(batch_size=BATCH, mode=QueueExecutionMode.drain)
        await connection.close()


if __name__ == "__main__":
    chosen = arguments(__doc__)
    uvloop.run(enqueue(chosen) if chosen.enqueue else run(chosen))
