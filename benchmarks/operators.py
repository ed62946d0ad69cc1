"""How long an operator waits for an answer: python -m benchmarks.operators.

Each command as it is typed, from its start to its end, against a fleet of equal accounts of which
one in twenty is due; in turns, the median and the slowest. Partitions are those of `videos`.

With the default of ten million videos it takes a quarter of an hour, nearly all of it to load them,
and 12 GB of disk, which it gives back unless they are kept.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from statistics import median
from time import monotonic
from typing import Final

import asyncpg
import uvloop

from benchmarks.arguments import folder, parser_of, whole
from benchmarks.live import postgres, print_table
from refresher.postgres.migrate import migrate
from refresher.postgres.partitioning import partition_videos

#: Accounts of one INSERT.
LOADED_AT_ONCE: Final = 5_000
#: One account in so many is due.
DUE_ONE_IN: Final = 20
SETTINGS: Final = {"shared_buffers": "2GB", "max_wal_size": "16GB"}

ADD_ACCOUNTS: Final = f"""
INSERT INTO refresher.accounts (open_id, access_token, wake_at, earliest_due_at, videos, valid,
                                valid_until)
SELECT '-000' || md5(number::text), 'act.' || md5(number::text), due_at, due_at, $2, $2,
       due_at + interval '90 minutes'
FROM (
    SELECT number, now() + CASE WHEN number % {DUE_ONE_IN} = 0 THEN -1 ELSE 24 END
                           * random() * interval '1 hour' AS due_at
    FROM generate_series(1, $1::integer) AS number
) AS fleet
"""
ADD_VIDEOS: Final = """
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, refreshed_at,
                              due_at, reserve)
SELECT a.open_id, (7000000000000000000 + a.place + 1000000 * video)::text,
       'https://p16-sign.tiktokcdn-us.com/obj/' || md5(a.place || ' ' || video) || '?x-expires='
           || extract(epoch FROM a.valid_until)::bigint || '&x-signature='
           || repeat(md5(video::text), 7) || '&idc=useast5&s=TIKTOK_FOR_DEVELOPER',
       a.valid_until, now(), a.earliest_due_at, NULL
FROM (
    SELECT open_id, valid_until, earliest_due_at, videos,
           row_number() OVER (ORDER BY open_id) AS place
    FROM refresher.accounts
) AS a CROSS JOIN LATERAL generate_series(1, a.videos) AS video
WHERE a.place > $1 AND a.place <= $2
"""
LAST: Final = """
SELECT v.open_id, v.video_id
FROM (
    SELECT open_id FROM refresher.accounts WHERE wake_at <= now() ORDER BY wake_at DESC LIMIT 1
) AS a JOIN refresher.videos AS v USING (open_id)
LIMIT 1
"""


async def fill(url: str, videos: int, accounts: int) -> None:
    """Equal accounts, their videos in the order of the key."""
    connection = await asyncpg.connect(url)
    # Nobody has to be woken, and every row is as a refresh leaves it.
    await connection.execute("ALTER TABLE refresher.videos DISABLE TRIGGER ALL")
    await connection.execute("SET synchronous_commit = off")
    await connection.execute(ADD_ACCOUNTS, accounts, videos // accounts)
    for first in range(0, accounts, LOADED_AT_ONCE):
        await connection.execute(ADD_VIDEOS, first, first + LOADED_AT_ONCE)
    await connection.execute("ALTER TABLE refresher.videos ENABLE TRIGGER ALL")
    await connection.execute("VACUUM (ANALYZE) refresher.accounts")
    await connection.execute("VACUUM (ANALYZE) refresher.videos")
    await connection.close()


async def commands(url: str) -> Mapping[str, Sequence[str]]:
    """By name: what is typed. The account is the last one of those that are due."""
    connection = await asyncpg.connect(url)
    row = await connection.fetchrow(LAST)
    await connection.close()
    if row is None:
        raise SystemExit(f"nothing is due: expected {DUE_ONE_IN} accounts or more")
    open_id, video_id = row
    return {
        "explain": ("explain", video_id),
        "explain-account": ("explain", "--account", open_id),
        "explain-both": ("explain", video_id, "--account", open_id),
        "show": ("accounts", "show", open_id),
        "forecast": ("forecast",),
        "doctor": ("doctor",),
    }


async def seconds_of(arguments: Sequence[str], url: str) -> float:
    """From the start of the process to its end."""
    environment = {**os.environ, "REFRESHER_DATABASE_URL": url}
    started = monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "refresher",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
    )
    code = await process.wait()
    if code not in (0, 1):  # 1: doctor has found that no replica runs
        raise SystemExit(f"refresher {' '.join(arguments)}: exit code {code}")
    return monotonic() - started


async def run(given: argparse.Namespace) -> None:
    async with postgres(SETTINGS, given.keep) as server:
        url = server.url("postgres")
        if await migrate(url):
            started = monotonic()
            await fill(url, given.videos, given.accounts)
            await migrate(url)  # the modes of the triggers
            print(f"loaded in {monotonic() - started:.0f} s", flush=True)
            if given.partitions:
                await partition_videos(url, given.partitions)
        known = await commands(url)
        wanted = given.commands.split(",") if given.commands else list(known)
        took: dict[str, list[float]] = {name: [] for name in wanted}
        for _ in range(given.repeats):
            for name in wanted:
                took[name].append(await seconds_of(known[name], url))
        print_table(
            ["command", "first", "median", "slowest"],
            [
                [name, *(f"{each:.2f} s" for each in (times[0], median(times), max(times)))]
                for name, times in took.items()
            ],
        )


def arguments() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.operators", __doc__)
    parser.add_argument("--videos", type=whole(), default=10_000_000)
    parser.add_argument("--accounts", type=whole(), default=100_000)
    parser.add_argument("--commands", help="names with commas between them; else all")
    parser.add_argument("--repeats", type=whole(), default=5)
    parser.add_argument("--partitions", type=whole(2, 1024))
    parser.add_argument("--keep", type=folder, help="keep the data in this folder, and use it")
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(run(arguments()))
