"""Two hosts with a PgBouncer before each: a failover is as short as without them.

TEST_PGBOUNCER names another PgBouncer than the one that is installed.
"""

import asyncio
from contextlib import AsyncExitStack
from time import monotonic

import pytest

from refresher.postgres.database import acquired, connected
from refresher.postgres.migrate import migrate
from tests import faults
from tests.conftest import administer, eventually

pytestmark = pytest.mark.skipif(
    not faults.pgbouncer_program(),
    reason="PgBouncer is not installed: apt-get install pgbouncer",
)

ACCOUNTS, VIDEOS_EACH = 5, 40
#: Below this the machine says more than the program.
LEAST_SECONDS = 1.5
DATABASE = "refresher"


@pytest.fixture
async def pair():
    """A primary with our schema, and its standby."""
    with faults.own_server() as primary:
        await administer(primary.url, f"CREATE DATABASE {DATABASE}")
        await migrate(primary.url_of(DATABASE))
        with faults.standby_of(primary) as standby:
            yield primary, standby


@pytest.fixture
def fresh_again(serve, start):
    """How long it takes from the end of the primary until new videos have their covers."""

    async def fresh_again(primary, standby, *ports):
        beside = await serve()
        url = primary.url_of(DATABASE, *ports)
        async with faults.looking(beside, primary.url_of(DATABASE)) as world:
            for number in range(ACCOUNTS):
                await world.add_account(f"account-{number}", videos=VIDEOS_EACH)
            daemon = await start(world, database_url=url, poll_seconds=0.5, lease_seconds=4)
            await world.until_valid(ACCOUNTS * VIDEOS_EACH)
            await world.until_no_leases()
            replayed = await world.pool.fetchval("SELECT pg_current_wal_lsn()::text")
        async with faults.looking(world, standby.url_of(DATABASE)) as later:
            await eventually(
                lambda: later.pool.fetchval(
                    "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", replayed
                ),
                "a standby that has all",
            )
            begun = monotonic()
            await asyncio.to_thread(primary.stop)
            await asyncio.to_thread(standby.promote)
            for number in range(ACCOUNTS):
                await later.add_videos(f"account-{number}", VIDEOS_EACH)
            await faults.until_valid(later, 2 * ACCOUNTS * VIDEOS_EACH)
            took = monotonic() - begun
        assert await daemon.stopped() == 0
        unforeseen = ("daemon.failed", "loop.failed", "account.failed", "library.failed")
        assert [line for line in daemon.lines() if line["event"] in unforeseen] == []
        return took

    return fresh_again


@pytest.mark.long
async def test_a_failover_behind_poolers_takes_no_longer_than_twice(fresh_again):
    """The pooler of the dead primary still logs clients in; the other one tells old news."""
    took = {}
    for pooled in (False, True):
        with faults.own_server() as primary:
            await administer(primary.url, f"CREATE DATABASE {DATABASE}")
            await migrate(primary.url_of(DATABASE))
            with faults.standby_of(primary) as standby:
                async with AsyncExitStack() as stack:
                    servers = (primary, standby)
                    ports = [server.port for server in servers]
                    if pooled:
                        ports = [
                            await stack.enter_async_context(faults.pgbouncer(server))
                            for server in servers
                        ]
                    took[pooled] = await fresh_again(primary, standby, *ports)
    assert took[True] <= 2 * max(took[False], LEAST_SECONDS), took


async def test_the_server_itself_is_asked(pair):
    """A pooler that met the standby first goes on saying in_hot_standby after the promotion."""
    primary, standby = pair
    async with faults.pgbouncer(standby) as behind, faults.pgbouncer(primary) as before:
        url = primary.url_of(DATABASE, before, behind)
        async with connected(url, application_name="tests") as pool:
            async with acquired(pool) as connection:
                assert not await connection.fetchval("SELECT pg_is_in_recovery()")
            await asyncio.to_thread(primary.stop)
            await asyncio.to_thread(standby.promote)
            await pool.expire_connections()
            begun = monotonic()
            async with acquired(pool) as connection:
                assert await connection.fetchval("SELECT inet_server_port()") == standby.port
            assert monotonic() - begun < LEAST_SECONDS
