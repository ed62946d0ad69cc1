"""PgQueuer as a worker that waits for jobs: each asks the endpoint for one video.

For `benchmarks.insert_to_cover`, which makes the jobs. With PgQueuer's defaults.
"""

import argparse
import json

import aiohttp
import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.runners.job import QUERY, arguments, bearer

REFRESH = "refresh"


async def install(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


async def enqueue(queries: Queries, video_id: str, token: str) -> None:
    """A job for a worker, as the application makes it."""
    payload = json.dumps({"video_id": video_id, "token": token}).encode()
    await queries.enqueue(REFRESH, payload)


async def run(options: argparse.Namespace) -> None:
    connection = await asyncpg.connect(options.database_url)
    async with aiohttp.ClientSession(options.base_url) as session:
        queue = PgQueuer(AsyncpgDriver(connection))

        async def refresh(job: Job) -> None:
            asked = json.loads(job.payload or b"{}")
            body = {"filters": {"video_ids": [asked["video_id"]]}}
            async with session.post(QUERY, json=body, headers=bearer(asked["token"])) as answer:
                await answer.read()

        queue.entrypoint(REFRESH)(refresh)
        await queue.run()


if __name__ == "__main__":
    chosen = arguments(__doc__)
    uvloop.run(install(chosen.database_url) if chosen.enqueue else run(chosen))
