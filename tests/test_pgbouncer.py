"""Behind PgBouncer in transaction mode, with nothing but the usual URL."""

import asyncio
import secrets
from contextlib import suppress

import pytest

from refresher.domain.errors import DatabaseUnavailable, StatementFailed
from refresher.postgres.database import acquired, connected
from refresher.postgres.migrate import migrate
from refresher.postgres.opening import LOCK_TIMEOUT
from tests import faults
from tests.conftest import administer
from tests.proxy import Proxy

pytestmark = pytest.mark.skipif(
    not faults.pgbouncer_program(),
    reason="PgBouncer is not installed: apt-get install pgbouncer",
)

MODES = pytest.mark.parametrize(
    "settings",
    [(), ("ignore_startup_parameters = jit, lock_timeout",)],
    ids=["as it comes", "parameters ignored"],
)
SQL_OURS = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"


@pytest.fixture(scope="module")
def own_server():
    with faults.own_server() as server:
        yield server


@pytest.fixture
async def own_database(own_server):
    """A migrated database on the server that PgBouncer leads to."""
    name = f"test_{secrets.token_hex(4)}"
    await administer(own_server.url, f"CREATE DATABASE {name}")
    await migrate(own_server.url_of(name))
    yield name
    await administer(own_server.url, f"DROP DATABASE {name} WITH (FORCE)")


@MODES
async def test_the_daemon_keeps_covers_fresh_behind_it(
    serve, start, own_server, own_database, settings
):
    """2,000 videos of 20 accounts over three server connections, and no time is lost."""
    beside = await serve()
    async with (
        faults.pgbouncer(own_server, *settings) as port,
        faults.looking(beside, own_server.url_of(own_database)) as world,
    ):
        for number in range(20):
            await world.add_account(f"account-{number}", videos=100)
        url = own_server.url_of(own_database, port)
        daemon = await start(world, database_url=url, poll_seconds=0.2)
        await world.until_valid(2000)
        await world.until_no_leases()
        assert len(world.emulator.record) <= 105
        assert await daemon.stopped() == 0
    assert daemon.events("database.lost") == []
    assert daemon.events("library.failed") == []


async def test_the_server_behind_it_restarts(serve, start, own_server, own_database):
    """PgBouncer keeps the daemon's connections and says what happened: it is waited out."""
    beside = await serve(latency_seconds=0.1)
    async with (
        faults.pgbouncer(own_server, "server_login_retry = 1") as port,
        faults.looking(beside, own_server.url_of(own_database)) as world,
    ):
        for number in range(10):
            await world.add_account(f"account-{number}", videos=60)
        url = own_server.url_of(own_database, port)
        daemon = await start(world, database_url=url, concurrency=2, lease_seconds=4)
        await faults.until_valid(world, 100)
        await asyncio.to_thread(own_server.restart, "immediate")
        await faults.until_valid(world, 600)
        assert await daemon.stopped() == 0
    assert daemon.events("library.failed") == []
    assert len(world.emulator.record) <= 45


async def test_the_commands_work_behind_it(start, own_server, tmp_path):
    """migrate, both imports and status; twice, for what the first left behind in the servers."""
    name = f"test_{secrets.token_hex(4)}"
    await administer(own_server.url, f"CREATE DATABASE {name}")
    (tmp_path / "accounts.csv").write_text("open_id,access_token\nana,act.x\n")
    (tmp_path / "videos.csv").write_text(
        "open_id,video_id\n" + "".join(f"ana,{number}\n" for number in range(1, 501))
    )
    async with faults.pgbouncer(own_server) as port:
        for command in [
            "migrate",
            "accounts import accounts.csv",
            "videos import videos.csv",
            "accounts list",
            "status",
        ]:
            for _ in range(2):
                done = await start(command=command, database_url=own_server.url_of(name, port))
                assert await done.ended() == 0, done.output.read_text()
    async with connected(own_server.url_of(name), application_name="tests") as pool:
        assert await pool.fetchval("SELECT count(*) FROM refresher.videos") == 500
    await administer(own_server.url, f"DROP DATABASE {name} WITH (FORCE)")


async def ways_of(pool):
    """Of the pool's connections: what settings are in force, and what they leave behind."""
    async with acquired(pool) as connection:
        settings = await connection.fetchrow(
            "SELECT current_setting('jit') AS jit, current_setting('lock_timeout') AS lock_timeout"
        )
        return (*settings, await connection.fetchval(SQL_OURS))


async def test_a_direct_connection_prepares_and_sets(own_server):
    """Statements are cached, jit is off, locks are not waited for: also where many begin at once."""
    async with connected(own_server.url, application_name="tests") as pool:
        for jit, lock_timeout, prepared in await asyncio.gather(*(ways_of(pool) for _ in range(6))):
            assert (jit, lock_timeout) == ("off", LOCK_TIMEOUT)
            assert prepared > 0


@MODES
async def test_a_pooled_connection_leaves_nothing_behind(own_server, settings):
    """No name stays in a server process, where another client might stumble over it."""
    async with (
        faults.pgbouncer(own_server, *settings) as port,
        connected(own_server.url_of("postgres", port), application_name="tests") as pool,
    ):
        assert await ways_of(pool) == ("on", "0", 0)


async def test_a_pooler_that_comes_or_goes_is_noticed(own_server):
    """Each new connection is looked at: the address may lead elsewhere than yesterday."""
    async with (
        faults.pgbouncer(own_server) as port,
        Proxy("127.0.0.1", own_server.port) as proxy,
        connected(own_server.url_of("postgres", proxy.port), application_name="tests") as pool,
    ):
        for target, prepares in [(own_server.port, True), (port, False)] * 2:
            proxy.target = ("127.0.0.1", target)
            proxy.cut()
            found = None
            while found is None:
                with suppress(DatabaseUnavailable):
                    found = await ways_of(pool)
            assert (found[2] > 0) == prepares


async def test_several_clients_do_not_disturb_each_other(own_server):
    """Three server processes shared by many statements at once."""
    async with (
        faults.pgbouncer(own_server) as port,
        connected(own_server.url_of("postgres", port), application_name="tests") as one,
        connected(own_server.url_of("postgres", port), application_name="tests") as two,
    ):

        async def ask(pool, number):
            async with acquired(pool) as connection:
                return await connection.fetchval("SELECT $1::bigint + 1", number)

        asked = [ask(pool, number) for number in range(100) for pool in (one, two)]
        answers = await asyncio.gather(*asked)
    assert answers == [number + 1 for number in range(100) for _ in range(2)]


async def test_a_slow_statement_gives_its_server_process_back(own_server):
    """What ran out of time is cancelled through the pooler: all three are free again at once."""
    async with (
        faults.pgbouncer(own_server) as port,
        connected(own_server.url_of("postgres", port), application_name="tests") as pool,
    ):

        async def ask(query):
            async with acquired(pool) as connection:
                await connection.execute(query, timeout=0.5)

        for query, error in [
            ("SELECT pg_sleep(60)", StatementFailed),
            ("SELECT 1", type(None)),
        ]:
            answers = await asyncio.gather(*(ask(query) for _ in range(3)), return_exceptions=True)
            assert [type(answer) for answer in answers] == 3 * [error]
