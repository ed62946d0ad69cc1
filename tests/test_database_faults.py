"""Every fault of the database, in mid-run: the same process outlives it and loses nothing."""

import asyncio
import secrets
import socket
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

import asyncpg
import pytest

from refresher.domain.errors import DatabaseUnavailable
from refresher.domain.model import CHUNK_SIZE
from refresher.flow.capacity import CHUNKS_UNDER_WAY
from refresher.postgres import database, opening
from refresher.postgres.database import acquired, connected
from refresher.postgres.migrate import migrate
from tests import faults
from tests.conftest import Daemon, World, administer, eventually, waits_for_a_lock
from tests.proxy import Proxy
from tests.test_tokens import CLIENT, authorize, is_live, until_answered, until_token_calls

CONCURRENCY = 2
#: Half a second between the requests of an account.
LIMIT = 120
SETTINGS = {
    "concurrency": CONCURRENCY,
    "rate_limit_per_token": LIMIT,
    "lease_seconds": 4,
    "poll_seconds": 0.2,
}
ACCOUNTS, VIDEOS_EACH = 14, 60
VIDEOS = ACCOUNTS * VIDEOS_EACH
REQUESTS = VIDEOS // CHUNK_SIZE
ENOUGH = 140


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


@dataclass
class Run:
    """A daemon in mid-run, and its world seen past whatever breaks its database."""

    world: World
    daemon: Daemon
    port: int

    async def finishes(self, videos: int = VIDEOS, spared: int = REQUESTS // 2) -> None:
        """All covers become valid in the same process, with few requests more than it takes."""
        await faults.until_valid(self.world, videos)
        await eventually(lambda: faults.is_ready(self.port), "a daemon that is ready")
        assert self.daemon.process.returncode is None
        assert len(self.world.emulator.record) <= videos // CHUNK_SIZE + spared

    def said(self) -> Counter[str]:
        return Counter(str(line["event"]) for line in self.daemon.lines())

    async def misses_its_database(self) -> bool:
        said = self.said()
        return said["database.lost"] > said["database.recovered"]

    def check_said(self) -> None:
        """Lost and recovered, in turn; and nothing of a kind that nobody foresaw."""
        said = self.said()
        assert said["database.lost"] >= 1
        assert said["database.recovered"] == said["database.lost"]
        unforeseen = ("daemon.failed", "loop.failed", "account.failed", "library.failed")
        assert not [name for name in unforeseen if said[name]]


@pytest.fixture
def running(serve, start, own_server, own_database):
    """A daemon in mid-run over the server's database, or over what `url` makes of its name."""

    @asynccontextmanager
    async def running(url=None, seen=None, latency_seconds=0.1, **settings):
        beside = await serve(latency_seconds=latency_seconds)
        past = (seen or own_server).url_of(own_database)
        async with faults.looking(beside, own_server.url_of(own_database)) as first:
            for number in range(ACCOUNTS):
                await first.add_account(f"account-{number}", videos=VIDEOS_EACH)
        port = faults.free_port()
        async with faults.looking(first, past) as world:
            daemon = await start(
                world,
                database_url=url or past,
                http_listen=f"127.0.0.1:{port}",
                **{**SETTINGS, **settings},
            )
            await faults.until_valid(world, ENOUGH)
            async with faults.lively(port):
                yield Run(world, daemon, port)
            assert await daemon.stopped() == 0
            faults.check_pace(world, LIMIT)

    return running


async def test_a_server_that_restarts(running, own_server, own_database):
    """In order, and as after a crash: twice lost, twice recovered."""
    async with running() as run:
        for number, mode in enumerate(("fast", "immediate"), 1):
            await asyncio.to_thread(own_server.stop, mode)
            # In less than that it may be back before a statement has missed it.
            await run.daemon.until_event("database.lost", count=number)
            await asyncio.to_thread(own_server.start)
            await eventually(
                lambda number=number: recovered(run.daemon, number), "a database that recovered"
            )
        await run.finishes()
    run.check_said()


async def recovered(daemon, times):
    return len(daemon.events("database.recovered")) >= times


async def test_connections_that_are_terminated_again_and_again(running, own_server, own_database):
    """Five times, each time all of them."""
    async with running() as run:
        for _ in range(5):
            before = await faults.valid(run.world)
            await administer(
                own_server.url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'refresher'",
            )
            await faults.until_valid(run.world, before + 2 * CHUNK_SIZE)
        await run.finishes()
    unforeseen = ("daemon.failed", "account.failed", "library.failed")
    assert not [name for name in unforeseen if run.said()[name]]


async def test_a_server_without_a_free_connection(running, own_server, own_database):
    """Others take them all; when they let go, the work goes on."""
    async with running() as run, AsyncExitStack() as others:
        taker = await others.enter_async_context(connection_to(own_server.url))
        while await taker.fetchval(NOT_TAKEN):
            await taker.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'refresher'"
            )
            with suppress(asyncpg.TooManyConnectionsError):
                while True:
                    await others.enter_async_context(connection_to(own_server.url))
        await eventually(run.misses_its_database, "a database that is lost and not recovered")
        begun = monotonic()
        await asyncio.sleep(1)  # a stretch of time in which nothing is spent
        assert faults.sent_between(run.world, begun, monotonic()) <= CONCURRENCY
        await others.aclose()
        await run.finishes()
    run.check_said()


#: Whether the daemon has a connection, or could get one. It may connect anew before others do,
#: and a backend that ends is no longer listed a little before its place is free.
NOT_TAKEN = """
    SELECT count(*) < current_setting('max_connections')::integer FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name <> 'refresher'
"""


@asynccontextmanager
async def connection_to(url):
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_server_that_fails_to_write(running, own_server, own_database):
    """A full or broken disk, a right taken away: claims still succeed, but no result is stored."""
    async with running() as run:
        await run.world.pool.execute(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE 'no write' USING ERRCODE ="
            "     ('{53100, 58030, XX001, 42501}'::text[])[1 + floor(4 * random())];"
            " END $$"
        )
        await run.world.pool.execute(
            "CREATE TRIGGER fail BEFORE UPDATE ON refresher.videos EXECUTE FUNCTION public.fail()"
        )
        begun = monotonic()
        await run.daemon.until_event("database.lost")
        await asyncio.sleep(begun + 1.5 - monotonic())
        sent = faults.sent_between(run.world, begun, monotonic())
        assert sent <= CONCURRENCY * CHUNKS_UNDER_WAY
        await run.world.pool.execute("DROP TRIGGER fail ON refresher.videos")
        await run.finishes(spared=2)
    run.check_said()


async def test_a_failover_behind_one_address(running, own_server, own_database):
    """The address leads to a standby, read-only at first; nothing is spent until it is promoted."""
    with faults.standby_of(own_server) as standby:
        async with (
            Proxy("127.0.0.1", own_server.port) as proxy,
            running(own_server.url_of(own_database, proxy.port), seen=standby) as run,
        ):
            proxy.target = ("127.0.0.1", standby.port)
            proxy.cut()

            # By the cut, or by the first write that the standby refuses.
            await run.daemon.until_event("database.lost")
            begun = monotonic()
            await asyncio.sleep(1)  # a stretch of time in which nothing is spent
            assert faults.sent_between(run.world, begun, monotonic()) <= CONCURRENCY
            await asyncio.to_thread(standby.promote)
            await run.finishes()
    run.check_said()


async def test_a_failover_among_several_hosts(running, own_server, own_database):
    """The primary dies, the standby is promoted later: the URL that names both finds it."""
    with faults.standby_of(own_server) as standby:
        url = own_server.url_of(own_database, own_server.port, standby.port)
        async with running(url, seen=standby) as run:
            await asyncio.to_thread(own_server.stop)
            try:
                await run.daemon.until_event("database.lost")
                await asyncio.to_thread(standby.promote)
                await run.finishes()
            finally:
                await asyncio.to_thread(own_server.start)
    run.check_said()


async def test_a_connection_that_is_half_open(running, own_server, own_database):
    """No byte goes through and nobody says so: noticed by the time-out, mended by the thaw."""
    async with (
        Proxy("127.0.0.1", own_server.port) as proxy,
        running(own_server.url_of(own_database, proxy.port)) as run,
    ):
        proxy.freeze()
        frozen = monotonic()
        await run.daemon.until_event("database.lost")
        noticed = monotonic()
        # A claim that hangs tells at once. Where a write-back hangs first, and no claim is sent as its
        # results wait, the new connection for its second try tells.
        longest = opening.STATEMENT_SECONDS + opening.RELEASE_SECONDS + opening.CONNECT_SECONDS
        assert noticed - frozen < longest + 2
        sent = faults.sent_between(run.world, frozen, noticed)
        assert sent <= CONCURRENCY * CHUNKS_UNDER_WAY
        proxy.thaw()
        await run.finishes()
    run.check_said()


async def test_a_stop_while_the_connection_is_half_open(running, own_server, own_database):
    """Nothing answers, and the grace time is kept all the same."""
    async with Proxy("127.0.0.1", own_server.port) as proxy:
        url = own_server.url_of(own_database, proxy.port)
        async with running(url, shutdown_grace_seconds=2) as run:
            proxy.freeze()
            await asyncio.sleep(1)  # a stretch of time in which statements come to hang
        signaled, stopped = (
            datetime.fromisoformat(run.daemon.events(name)[0]["timestamp"])
            for name in ("daemon.signaled", "daemon.stopped")
        )
        assert stopped - signaled < timedelta(seconds=3)


async def test_a_slow_network_is_no_outage(running, own_server, own_database):
    """Every statement takes a tenth of a second longer; nothing is lost or asked twice."""
    async with (
        Proxy("127.0.0.1", own_server.port) as proxy,
        running(own_server.url_of(own_database, proxy.port)) as run,
    ):
        proxy.slow(0.05)
        await faults.until_valid(run.world, 3 * ENOUGH)
        proxy.slow(0)
        await run.finishes(spared=2)
    assert run.daemon.events("database.lost") == []


@pytest.mark.long
async def test_a_database_far_away_is_used_all_the_same(running, own_server, own_database):
    """A statement takes 0.6 s: longer than a slot may be missed by, and slots begin later."""
    async with Proxy("127.0.0.1", own_server.port) as proxy:
        proxy.slow(0.3)
        url = own_server.url_of(own_database, proxy.port)
        async with running(url, concurrency=16, lease_seconds=12) as run:
            await run.finishes()


async def test_a_locked_table_is_no_outage(running, own_server, own_database):
    """Somebody migrates the videos for a while: results wait, and little is asked meanwhile."""
    async with running() as run:
        async with run.world.pool.acquire() as other, other.transaction():
            await other.execute("LOCK TABLE refresher.videos")
            begun = monotonic()
            await eventually(lambda: waits_for_a_lock(run.world.pool), "a statement that waits")
            await asyncio.sleep(1.5)  # the lock lasts
            sent = faults.sent_between(run.world, begun, monotonic())
            assert sent <= CONCURRENCY * CHUNKS_UNDER_WAY
        await run.finishes()
    assert run.daemon.events("database.lost") == []


async def test_a_database_that_is_down_for_a_while(running, own_server, own_database):
    """Stopped for eight seconds: at most one buffer of calls is spent, and all is fresh after."""
    concurrency = 4
    async with running(concurrency=concurrency, latency_seconds=0.06) as run:
        for number in range(42):
            await run.world.add_account(f"more-{number}", videos=100)
        await asyncio.to_thread(own_server.stop)
        stopped = monotonic()
        await run.daemon.until_event("database.lost")
        await asyncio.sleep(stopped + 8 - monotonic())
        sent = faults.sent_between(run.world, stopped, monotonic())
        assert sent <= concurrency * CHUNKS_UNDER_WAY
        await asyncio.to_thread(own_server.start)
        await run.finishes(VIDEOS + 4200)
    run.check_said()


@pytest.fixture
async def hosts(own_server):
    """Two addresses of one server, and a URL that names both."""
    there = ("127.0.0.1", own_server.port)
    async with Proxy(*there) as one, Proxy(*there) as two:
        yield one, two, own_server.url_of("postgres", one.port, two.port)


async def asked(pool):
    async with acquired(pool) as connection:
        return await connection.fetchval("SELECT 1")


async def test_a_host_that_says_nothing_is_passed_by(hosts, monkeypatch):
    """Each host has a time-out of its own, and the one that answered is asked first afterwards."""
    one, two, url = hosts
    monkeypatch.setattr(opening, "CONNECT_SECONDS", 0.3)
    one.freeze()
    async with connected(url, application_name="tests") as pool:
        assert await asked(pool) == 1
        tried = one.accepted
        await pool.expire_connections()
        assert await asked(pool) == 1
        assert one.accepted == tried
        two.cut()
        await two.refuse()
        one.thaw()
        await eventually(lambda: answered(pool), "an answer from the other host")


async def answered(pool):
    try:
        return await asked(pool)
    except DatabaseUnavailable:
        return False


async def test_a_server_that_became_read_only_is_left(own_server):
    """The idle connections to it are not used again: the next ones lead to the new primary."""
    with faults.standby_of(own_server) as standby:
        standby.promote()
        async with (
            Proxy("127.0.0.1", own_server.port) as proxy,
            connected(own_server.url_of("postgres", proxy.port), application_name="tests") as pool,
        ):
            await asyncio.gather(*(slow_ask(pool) for _ in range(4)))
            assert pool.get_idle_size() == 4
            proxy.target = ("127.0.0.1", standby.port)
            await read_only(own_server, "on")
            try:
                async with acquired(pool) as connection:
                    await eventually(lambda: is_read_only(connection), "a server that is read-only")
                with pytest.raises(DatabaseUnavailable, match="read-only"):
                    await write(pool)
                assert pool.get_idle_size() == 0
                await write(pool)
            finally:
                await read_only(own_server, "off")


async def slow_ask(pool):
    async with acquired(pool) as connection:
        await connection.execute("SELECT pg_sleep(0.1)")


async def read_only(server, value):
    await administer(
        server.url,
        "SET default_transaction_read_only = off",
        f"ALTER SYSTEM SET default_transaction_read_only = {value}",
        "SELECT pg_reload_conf()",
    )


async def is_read_only(connection):
    return await connection.fetchval("SHOW transaction_read_only") == "on"


async def write(pool):
    async with acquired(pool) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS written (id int)")


async def test_nothing_waits_for_a_frozen_server(own_server, monkeypatch):
    """A statement, its release, an idle connection and a new one: each has its time-out."""
    longest = 1.5
    for name in ("STATEMENT_SECONDS", "RELEASE_SECONDS", "CONNECT_SECONDS"):
        monkeypatch.setattr(opening, name, longest)
    monkeypatch.setattr(database, "RELEASE_SECONDS", longest)
    async with (
        Proxy("127.0.0.1", own_server.port) as proxy,
        connected(own_server.url_of("postgres", proxy.port), application_name="tests") as pool,
    ):
        await asyncio.gather(*(slow_ask(pool) for _ in range(4)))
        proxy.freeze()
        for _ in range(3):
            begun = monotonic()
            with pytest.raises(DatabaseUnavailable, match="no answer in time"):
                await asked(pool)
            assert monotonic() - begun < 4 * longest
        assert pool.get_size() == 0
        proxy.thaw()
        assert await asked(pool) == 1


async def test_loops_on_dead_connections_hold_a_claim_up_no_longer_than_its_own(
    own_server, monkeypatch
):
    """More of them than the pool has places: who asks behind them all is answered in one time-out."""
    monkeypatch.setattr(opening, "STATEMENT_SECONDS", 1.0)
    monkeypatch.setattr(database, "RELEASE_SECONDS", 0.5)
    async with (
        Proxy("127.0.0.1", own_server.port) as proxy,
        connected(own_server.url_of("postgres", proxy.port), application_name="tests") as pool,
    ):
        await asyncio.gather(*(slow_ask(pool) for _ in range(database.POOL_SIZE)))
        assert pool.get_idle_size() == database.POOL_SIZE
        proxy.strand()
        begun = monotonic()
        loops = [asyncio.create_task(answered(pool)) for _ in range(2 * database.POOL_SIZE)]
        await eventually(lambda: all_taken(pool), "a pool in use")
        assert await asked(pool) == 1
        assert monotonic() - begun < 1.0 + 0.5 + 1
        answers = await asyncio.gather(*loops)
        assert answers == [False] * database.POOL_SIZE + [1] * database.POOL_SIZE


async def test_a_full_pool_is_not_waited_for_for_ever(own_server):
    """Who gets no connection in time hears that the database is not to be had."""
    async with connected(own_server.url, application_name="tests") as pool:
        async with asyncio.TaskGroup() as group:
            done = asyncio.Event()

            async def hold():
                async with acquired(pool):
                    await done.wait()

            for _ in range(database.POOL_SIZE):
                group.create_task(hold())
            await eventually(lambda: all_taken(pool), "a pool in use")
            with pytest.raises(DatabaseUnavailable):
                async with acquired(pool, seconds=0.2):
                    pass
            done.set()
        assert await asked(pool) == 1


async def all_taken(pool):
    return pool.get_size() == database.POOL_SIZE and pool.get_idle_size() == 0


async def test_a_slow_statement_is_cancelled_on_the_server(own_server):
    """What ran out of time does not go on behind our back, and the connection is given back."""
    async with connected(own_server.url, application_name="slow") as pool:
        with pytest.raises(DatabaseUnavailable):
            async with acquired(pool) as connection:
                await connection.execute("SELECT pg_sleep(60)", timeout=0.2)

        async def none_left():
            async with acquired(pool) as connection:
                return not await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE query LIKE 'SELECT pg_sleep(60)%' AND state = 'active'"
                )

        await eventually(none_left, "no statement left")


async def test_the_kernel_looks_after_a_long_statement(own_server):
    """A scan has no time-out of ours: that the other end is gone is for TCP to notice."""
    async with (
        connected(own_server.url, application_name="tests") as pool,
        acquired(pool) as connection,
    ):
        its_socket = connection._transport.get_extra_info("socket")
        assert its_socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value, _ in opening.KEEPALIVE:
            if option := getattr(socket, name, None):
                assert its_socket.getsockopt(socket.IPPROTO_TCP, option) == value


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["end", "HTTP"])
async def test_an_address_that_speaks_something_else_is_waited_out(answer):
    """Whoever answers at the database's port in its place: away, not wrong."""

    async def serve(reader, writer):
        await reader.read(1)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        url = f"postgresql://nobody:{faults.PASSWORD}@127.0.0.1:{port}/x"
        async with connected(url, application_name="tests") as pool:
            with pytest.raises(DatabaseUnavailable):
                await asked(pool)


async def test_a_pair_in_hand_is_not_overtaken_after_a_long_outage(
    serve, start, own_server, own_database
):
    """Another replica finds the database first, and the time for the request is over."""
    beside = await serve(latency_seconds=6.0)
    settings = {**CLIENT, "lease_seconds": 1, "poll_seconds": 0.2}
    there = ("127.0.0.1", own_server.port)
    async with (
        faults.looking(beside, own_server.url_of(own_database)) as world,
        Proxy(*there) as one,
        Proxy(*there) as two,
    ):
        await authorize(world, "ana", lives=-1)
        urls = [own_server.url_of(own_database, proxy.port) for proxy in (one, two)]
        holder = await start(world, database_url=urls[0], **settings)
        await until_token_calls(world, 1)
        other = await start(world, database_url=urls[1], **settings)
        await other.until_event("daemon.started")
        for proxy in (one, two):
            await proxy.refuse()
            proxy.cut()
        for daemon in (holder, other):
            await daemon.until_event("database.lost")
        await until_answered(world)
        over = (
            "UPDATE refresher.accounts SET lease_expires_at = now(), wake_at = now(),"
            " token_request_until = now() RETURNING lease_epoch"
        )
        epoch = await world.pool.fetchval(over)
        await two.accept()
        overtaken = f"SELECT lease_epoch > {epoch} FROM refresher.accounts"
        await eventually(lambda: world.pool.fetchval(overtaken), "the other replica's claim")
        await one.accept()
        await world.until_valid(1)
        assert len(world.emulator.token_record) == 1
        assert await is_live(world, "ana")
