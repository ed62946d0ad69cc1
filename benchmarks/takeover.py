"""How soon the accounts of a killed replica are worked: python -m benchmarks.takeover.

Two replicas with default settings share accounts that have more work than their tokens' limit lets
through, so each account is under lease all the time. One replica is killed (SIGKILL); measured is
the time until another one has claimed every account that it held. Then the next one is killed,
and so on. With --against FOLDER the same with the build of another checkout, in turns.

Takes about a quarter of an hour with --against.
"""

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median
from time import monotonic
from typing import Final

import asyncpg
import uvloop

from benchmarks.arguments import checkout, parser_of, whole
from benchmarks.builds import Build, compared
from benchmarks.live import daemon, postgres, print_table, print_verdict
from benchmarks.world import Server
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator

ACCOUNTS: Final = 40
VIDEOS_EACH: Final = 3_000
FIRST_ID: Final = 7_000_000_000_000_000_000
#: So that no account's work ends.
LIMIT_PER_MINUTE: Final = 60
#: Replicas have had their sessions for so long, and share the accounts.
SETTLED_SECONDS: Final = 25.0
LOOK_SECONDS: Final = 0.02
LONGEST_SECONDS: Final = 120.0
#: Of the time of the build before, at most.
GOAL: Final = 1 / 4

ADD_ACCOUNTS: Final = """
INSERT INTO refresher.accounts (open_id, access_token)
SELECT 'account-' || number, 'act.account-' || number
FROM generate_series(0, $1::integer - 1) AS number
"""
ADD_VIDEOS: Final = f"""
INSERT INTO refresher.videos (open_id, video_id)
SELECT 'account-' || number, ({FIRST_ID} + number * 100000 + v)::text
FROM generate_series(0, $1::integer - 1) AS number, generate_series(1, $2::integer) AS v
"""
HELD: Final = """
SELECT lease_owner, array_agg(open_id) AS open_ids, array_agg(lease_epoch) AS epochs
FROM refresher.accounts WHERE lease_expires_at > now() AND lease_owner LIKE $1
GROUP BY 1
"""
STILL_HELD: Final = """
SELECT count(*) FROM refresher.accounts
JOIN unnest($1::text[], $2::bigint[]) AS held (open_id, epoch) USING (open_id)
WHERE lease_epoch = epoch
"""


def main() -> None:
    uvloop.run(run(read_options()))


def read_options() -> argparse.Namespace:
    parser = parser_of("python -m benchmarks.takeover", __doc__)
    add = parser.add_argument
    add("--kills", type=whole(), default=5, help="of each build (default %(default)s)")
    add("--against", type=checkout, metavar="FOLDER", help="a checkout of another build")
    return parser.parse_args()


async def run(options: argparse.Namespace) -> None:
    builds = compared(options.against)
    took: list[list[float]] = [[] for _ in builds]
    emulator = Emulator(EmulatorOptions(rate_limit_per_token=LIMIT_PER_MINUTE))
    for number in range(ACCOUNTS):
        emulator.add_account(f"account-{number}", f"act.account-{number}")
        for v in range(1, VIDEOS_EACH + 1):
            emulator.add_video(f"account-{number}", str(FIRST_ID + number * 100_000 + v))
    async with postgres({"max_connections": "200"}) as server, emulator.serving() as base_url:
        for _ in range(options.kills):
            for build, seconds in zip(builds, took, strict=True):
                seconds.append(await taken_over(server, build, base_url))
    show(builds, took)


async def taken_over(server: Server, build: Build, base_url: str) -> float:
    """Seconds from the kill of a replica until others have claimed all that it held."""
    await server.copy_database("template0", "fleet")
    url = server.url("fleet")
    build.migrate(url)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(server.connected("fleet"))
        await connection.execute(ADD_ACCOUNTS, ACCOUNTS)
        await connection.execute(ADD_VIDEOS, ACCOUNTS, VIDEOS_EACH)
        await connection.execute("VACUUM (ANALYZE)")
        _, killed = (
            stack.enter_context(
                daemon(
                    url,
                    base_url,
                    variables=build.variables,
                    rate_limit_per_token=LIMIT_PER_MINUTE,
                )
            )
            for _ in range(2)
        )
        await asyncio.sleep(SETTLED_SECONDS)
        held = await connection.fetchrow(HELD, f"%-{killed.pid}-%")
        if held is None:
            raise SystemExit("the replica that is to be killed works no account")
        begun = monotonic()
        killed.kill()
        held = await connection.fetchrow(HELD, f"%-{killed.pid}-%") or held
        await until_claimed(connection, held, begun)
        return monotonic() - begun


async def until_claimed(
    connection: "asyncpg.Connection[asyncpg.Record]", held: asyncpg.Record, begun: float
) -> None:
    while await connection.fetchval(STILL_HELD, held["open_ids"], held["epochs"]):
        if monotonic() > begun + LONGEST_SECONDS:
            raise SystemExit("the accounts of the killed replica are still its own")
        await asyncio.sleep(LOOK_SECONDS)


def show(builds: Sequence[Build], took: Sequence[Sequence[float]]) -> None:
    print_table(
        ["", "kills", "s: median", "worst"],
        [
            [build.name, str(len(seconds)), f"{median(seconds):.1f}", f"{max(seconds):.1f}"]
            for build, seconds in zip(builds, took, strict=True)
        ],
    )
    if len(builds) > 1:
        ours, before = took
        ratio = median(one / other for one, other in zip(ours, before, strict=True))
        print_verdict(f"median of the ratios: {ratio:.2f}", met=ratio <= GOAL)


if __name__ == "__main__":
    main()
