"""A statement that takes long on one of several hosts: only a host that is silent is left."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

import pytest

from refresher.postgres.database import POOL_SIZE, acquired, connected
from refresher.postgres.failures import DRIVER_ERRORS
from refresher.postgres.hosts import SILENT_SECONDS
from refresher.postgres.lookout import ANSWER_SECONDS
from tests import faults
from tests.proxy import Proxy

#: Long enough for three looks, were they to come each half second.
SLOW_SECONDS = 2.6
#: After 0.5 and 1.5 s; the next would be after 3.5 s.
MOST_LOOKS = 2


@pytest.fixture(scope="module")
def own_server():
    with faults.own_server() as server:
        yield server


@asynccontextmanager
async def two_names(server):
    """One server by its address and by its name."""
    yield server.url.replace("@127.0.0.1:", f"@127.0.0.1:{server.port},localhost:")


@asynccontextmanager
async def two_poolers(server, *settings):
    """Two PgBouncers before one server: the usual set-up. `settings` are lines more."""
    if not faults.pgbouncer_program():
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    async with (
        faults.pgbouncer(server, *settings) as one,
        faults.pgbouncer(server, *settings) as two,
    ):
        yield server.url_of("postgres", one, two)


@pytest.fixture
async def proxies(own_server):
    """Two addresses of one server, and a URL that names both."""
    there = ("127.0.0.1", own_server.port)
    async with Proxy(*there) as one, Proxy(*there) as two:
        yield one, two, own_server.url_of("postgres", one.port, two.port)


def most_looks(seconds):
    """In so many seconds. A busy machine begins the statements one by one, and each has its looks."""
    return MOST_LOOKS if seconds < SLOW_SECONDS + 0.4 else 2 * seconds


async def fill(pool):
    """Open all its connections."""
    async with AsyncExitStack() as stack:
        for _ in range(POOL_SIZE):
            await stack.enter_async_context(acquired(pool))


async def slow(pool, seconds=SLOW_SECONDS):
    async with acquired(pool) as connection:
        return await connection.fetchval(f"SELECT 1 FROM pg_sleep({seconds})")


@pytest.mark.parametrize("several", [two_names, two_poolers])
async def test_a_slow_statement_ends_where_both_hosts_take_writes(own_server, several):
    """Neither it nor a transaction beside it is cut, though the other host would do as well."""
    async with (
        several(own_server) as url,
        connected(url, application_name="tests") as pool,
        acquired(pool) as beside,
        beside.transaction(),
    ):
        process = await beside.fetchval("SELECT pg_backend_pid()")
        assert await slow(pool) == 1
        assert await beside.fetchval("SELECT pg_backend_pid()") == process


async def test_a_pooler_that_is_busy_is_not_left_for_another_of_the_same_server(own_server):
    """All its places are taken for a while: a look at it waits, and says nothing of its server."""
    async with (
        two_poolers(own_server, "default_pool_size = 1") as url,
        connected(url, application_name="tests") as pool,
    ):
        assert await slow(pool, 1.2) == 1


async def test_a_host_that_answers_is_looked_at_more_and_more_seldom(proxies, monkeypatch):
    """All that wait share one look, and the other host is not asked at all."""
    # A busy machine may need more than the usual fifth of a second until the other one is asked.
    monkeypatch.setattr("refresher.postgres.lookout.AT_ONCE_SECONDS", 10.0)
    monkeypatch.setattr("refresher.postgres.lookout.ANSWER_SECONDS", 10.0)
    one, two, url = proxies
    async with connected(url, application_name="tests") as pool:
        await fill(pool)
        opened, began = (one.accepted, two.accepted), monotonic()
        assert await asyncio.gather(*(slow(pool) for _ in range(POOL_SIZE))) == [1] * POOL_SIZE
        looks = (one.accepted - opened[0], two.accepted - opened[1])
        assert 1 <= max(looks) <= most_looks(monotonic() - began)
        assert min(looks) == 0


async def test_a_host_that_answers_slowly_is_looked_at_as_seldom(proxies, monkeypatch):
    """As one far away, or busy: it is taken for a silent one at first, and the other one asked."""
    # A busy machine may need more than the usual second for an answer that is slowed down.
    monkeypatch.setattr("refresher.postgres.lookout.ANSWER_SECONDS", 10.0)
    one, two, url = proxies
    async with connected(url, application_name="tests") as pool:
        await fill(pool)
        for proxy in (one, two):
            proxy.slow(0.03)
        opened, began = one.accepted + two.accepted, monotonic()
        assert await asyncio.gather(*(slow(pool, 4.6) for _ in range(POOL_SIZE)))
        took = monotonic() - began
        # After about 0.5, 1.8 and 4.1 s, on a busy machine one more; at a silent host there were 5.
        looks = 4 if took < 5 else 2 * took
        assert 1 <= one.accepted + two.accepted - opened <= 2 * looks


async def test_a_silent_host_is_left_at_once_for_another_server(own_server):
    """After half a second and a fifth of one: it need not be given time, as a busy pooler is."""
    with faults.own_server() as promoted:
        async with Proxy("127.0.0.1", own_server.port) as silent:
            url = own_server.url_of("postgres", silent.port, promoted.port)
            async with connected(url, application_name="tests") as pool:
                async with acquired(pool) as connection:
                    silent.freeze()
                    begun = monotonic()
                    with pytest.raises(DRIVER_ERRORS):
                        await connection.execute("SELECT pg_sleep(60)")
                    assert monotonic() - begun < SILENT_SECONDS + ANSWER_SECONDS
                async with acquired(pool) as connection:
                    assert await connection.fetchval("SELECT inet_server_port()") == promoted.port


async def test_a_host_that_is_silent_is_left_and_the_other_is_not(proxies):
    """What waits for it ends within seconds; a statement on the other host goes on."""
    one, two, url = proxies
    async with (
        connected(url, application_name="tests") as pool,
        acquired(pool) as connection,
        asyncio.TaskGroup() as group,
    ):
        one.freeze()
        elsewhere = group.create_task(slow(pool, 4))
        begun = monotonic()
        with pytest.raises(DRIVER_ERRORS):
            await connection.execute("SELECT pg_sleep(60)")
        assert monotonic() - begun < 4
        assert two.accepted
        assert await elsewhere == 1


async def test_a_silent_host_is_not_left_for_a_host_that_is_away(proxies):
    """The only one that there is: what it owes comes when it is heard again."""
    one, two, url = proxies
    async with (
        connected(url, application_name="tests") as pool,
        acquired(pool) as connection,
        asyncio.TaskGroup() as group,
    ):
        await two.refuse()
        waiting = group.create_task(connection.fetchval("SELECT 1 FROM pg_sleep(0.1)"))
        one.freeze()
        await asyncio.sleep(SLOW_SECONDS)  # a stretch of time in which nothing is cut
        assert not waiting.done()
        one.thaw()
        assert await waiting == 1
