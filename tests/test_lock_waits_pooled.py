"""What waits for a lock, behind PgBouncer in transaction mode: who holds it is found all the same."""

import secrets

import pytest

from refresher.postgres.migrate import migrate
from tests import faults
from tests.conftest import administer
from tests.test_lock_waits import carry_covers, held
from tests.test_pgbouncer import pytestmark as needs_pgbouncer

pytestmark = needs_pgbouncer


@pytest.fixture(scope="module")
def own_server():
    with faults.own_server() as server:
        yield server


@pytest.fixture
async def own_database(own_server):
    name = f"test_{secrets.token_hex(4)}"
    await administer(own_server.url, f"CREATE DATABASE {name}")
    await migrate(own_server.url_of(name))
    yield name
    await administer(own_server.url, f"DROP DATABASE {name} WITH (FORCE)")


async def test_who_holds_the_lock_is_found_behind_a_pooler(serve, start, own_server, own_database):
    """The others are written, the holder is named, and the pooler keeps none of our names."""
    beside = await serve()
    async with (
        faults.pgbouncer(own_server) as port,
        faults.looking(beside, own_server.url_of(own_database)) as world,
    ):
        ids = [await world.add_account(f"account-{number}", videos=20) for number in range(20)]
        await carry_covers(world)
        async with held(own_server.url_of(own_database), ids[3][0]) as application:
            daemon = await start(
                world, database_url=own_server.url_of(own_database, port), poll_seconds=0.2
            )
            await world.until_valid(19 * 20)
            blocked = await daemon.until_event("chunk.blocked")
            assert blocked["open_id"] == "account-3"
            assert blocked["holder_pid"] == application.get_server_pid()
            assert blocked["holder_application"] == "nightly report"
        await world.until_valid(20 * 20)
        await world.until_no_leases()
        assert daemon.events("database.lost") == []
        assert await daemon.stopped() == 0
        names = await world.pool.fetch("SELECT application_name AS name FROM pg_stat_activity")
        assert not [row["name"] for row in names if "waits" in (row["name"] or "")]
