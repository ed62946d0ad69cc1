"""A video that another program inserts is asked for at once: nobody waits for the poll."""

import asyncio
import json
import os
import secrets
import sys
from contextlib import asynccontextmanager
from time import monotonic

import asyncpg
import pytest

from refresher.domain.model import Release
from refresher.postgres import listening as listening_module
from refresher.postgres.announcing import QUEUE_FULL
from refresher.postgres.database import connected, opened_beside
from refresher.postgres.listening import (
    LOST,
    NOT_DELIVERED,
    TWO_PHASE,
    WAKE_CHANNEL,
    Listener,
    UnheardError,
)
from refresher.postgres.migrate import migrate
from refresher.postgres.sessions import Sessions
from refresher.postgres.status import pause_all, set_state
from tests import faults
from tests.conftest import PATIENCE_SECONDS, administer, eventually
from tests.documented import blocks
from tests.proxy import Proxy
from tests.test_claims import account, replica, store

#: No test waits for such a poll.
NEVER = 3600.0


@asynccontextmanager
async def listening(database):
    """The notifications that daemons of this database get, as a list that grows."""
    connection = await asyncpg.connect(database)
    heard = []
    await connection.add_listener(WAKE_CHANNEL, lambda *_: heard.append(WAKE_CHANNEL))
    try:
        yield Ears(connection, heard)
    finally:
        await connection.close()


class Ears:
    def __init__(self, connection, heard):
        self._connection = connection
        self._heard = heard

    async def heard(self):
        """How many notifications have come since the last call; of all that was committed."""
        # It comes after what was committed before it.
        arrived = asyncio.Event()
        await self._connection.add_listener("last", lambda *_: arrived.set())
        await self._connection.execute("NOTIFY last")
        await arrived.wait()
        heard = len(self._heard)
        self._heard.clear()
        return heard


def sessions(pool):
    return Sessions(pool, "a", "1", lease_seconds=60, clock=monotonic)


async def asleep(pool, *open_ids):
    """Accounts with three videos, of which nothing is due, as releases leave them."""
    for open_id in open_ids:
        await store(pool, open_id, 3, due_in=1000)
    await pool.execute("UPDATE refresher.accounts SET wake_at = now() + interval '1000 seconds'")
    await told_long_ago(pool)


async def told_long_ago(pool):
    """As if some time had passed since daemons were told last."""
    await pool.execute("SELECT setval('refresher.daemons_told', 0)")


async def insert(pool, open_id, *video_ids, due="now()"):
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, due_at)"
        f" SELECT $1, id, {due} FROM unnest($2::text[]) AS id",
        open_id,
        video_ids,
    )


@pytest.fixture(scope="module")
def own_server():
    with faults.own_server() as server:
        yield server


@asynccontextmanager
async def migrated(server):
    """A migrated database on this server: its name."""
    name = f"test_{secrets.token_hex(4)}"
    await administer(server.url, f"CREATE DATABASE {name}")
    await migrate(server.url_of(name))
    yield name
    await administer(server.url, f"DROP DATABASE {name} WITH (FORCE)")


async def hears(daemon, times=1):
    await eventually(
        lambda: _told(daemon, "notifications.received", times), "a daemon that hears of new videos"
    )


async def _told(daemon, name, times):
    return len(daemon.events(name)) >= times


# --- What is notified ---


async def test_a_video_of_a_sleeping_account_notifies(pool, database):
    """Once, at the commit; a video that is due later, or of an account that is awake, does not."""
    await asleep(pool, "ana", "ben")
    async with listening(database) as ears:
        await insert(pool, "ana", "new")
        assert await ears.heard() == 1
        await insert(pool, "ana", "newer")
        await insert(pool, "ben", "later", due="now() + interval '10 minutes'")
        assert await ears.heard() == 0


@pytest.mark.parametrize("at_once", [True, False], ids=["one statement", "many statements"])
async def test_a_bulk_load_notifies_once(pool, database, at_once):
    """Ten thousand videos of an account, and those of a hundred accounts in a transaction."""
    names = [f"account-{number}" for number in range(100)]
    await asleep(pool, "ana", *names)
    ids = [f"new-{number}" for number in range(10_000 if at_once else 200)]
    async with listening(database) as ears:
        for group in [ids] if at_once else [[one] for one in ids]:
            await insert(pool, "ana", *group)
        assert await ears.heard() == 1
        await told_long_ago(pool)
        async with pool.acquire() as connection, connection.transaction():
            for name in names:
                await insert(connection, name, "new")
        assert await ears.heard() == 1


async def test_what_is_rolled_back_notifies_nobody(pool, database):
    """Videos that are not stored are nothing to look for."""
    await asleep(pool, "ana")
    async with listening(database) as ears, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await insert(connection, "ana", "new")
        await transaction.rollback()
        assert await ears.heard() == 0


async def test_the_daemons_own_writes_notify_nobody(pool, database):
    """Neither a claim nor a release, whether something is due afterwards or not."""
    await store(pool, "ana", 3, due_in=-1)
    claims = replica(pool)
    async with listening(database) as ears:
        (claim,) = await claims.claim(10)
        await claims.release([Release(claim.open_id, claim.lease_epoch)])
        assert (await account(pool, "ana"))["lease_owner"] is None
        (claim,) = await claims.claim(10)
        await insert(pool, "ana", "new")
        await claims.release([Release(claim.open_id, claim.lease_epoch)])
        row = await account(pool, "ana")
        assert row["wake_at"] <= row["now"]
        assert await ears.heard() == 0


async def test_accounts_that_become_free_notify(pool, database):
    """New accounts, new tokens for a parked one, `accounts resume`, `resume --all`, a retry."""
    await asleep(pool, "ana", "ben")
    await pool.execute(
        "UPDATE refresher.accounts SET state = 'needs_reauthorization' WHERE open_id = 'ana'"
    )
    await pool.execute("UPDATE refresher.accounts SET state = 'paused' WHERE open_id = 'ben'")
    async with listening(database) as ears:
        for wakes in [
            pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('eve')"),
            pool.execute("UPDATE refresher.accounts SET access_token = 'b' WHERE open_id = 'ana'"),
            set_state(pool, "ben", "active", None),
            pause_all(pool, paused=False),
        ]:
            await told_long_ago(pool)
            await wakes
            assert await ears.heard() == 1
        await told_long_ago(pool)
        for quiet in [set_state(pool, "ben", "paused", None), pause_all(pool, paused=True)]:
            await quiet
        await insert(pool, "ben", "new")
        assert await ears.heard() == 0


async def test_many_at_once_are_told_of_together(pool, database):
    """Of accounts that wake within a moment the first notifies; a moment later another does."""
    await asleep(pool, "ana", "ben", "eve")
    async with listening(database) as ears, pool.acquire() as connection:
        async with connection.transaction():  # one moment, however slow the machine is
            await insert(connection, "ana", "new")
            await connection.execute(
                "SELECT setval('refresher.daemons_told',"
                " (1000 * date_part('epoch', clock_timestamp()))::bigint + 40)"
            )
            await insert(connection, "ben", "new")
        assert await ears.heard() == 1
        await told_long_ago(pool)
        await insert(pool, "eve", "new")
        assert await ears.heard() == 1


# --- What a daemon does ---


async def test_a_daemon_asks_at_once(serve, start, pool):
    """For one video, for many accounts at once, and after a pause; the next poll is in an hour."""
    world = await serve()
    for name in ("ana", "ben", "eve"):
        await world.add_account(name, videos=1)
    daemon = await start(world, poll_seconds=NEVER)
    await hears(daemon)
    await world.until_valid(3)
    await world.until_no_leases()
    await world.add_videos("ana", 1)
    await world.until_valid(4)
    await world.until_no_leases()
    await asyncio.gather(*(world.add_videos(name, 1) for name in ("ana", "ben", "eve")))
    await world.until_valid(7)
    await world.until_no_leases()
    await world.add_account("joe", videos=1)
    await world.until_valid(8)
    assert daemon.events("notifications.missed") == []
    assert await daemon.stopped() == 0


async def test_a_video_of_an_account_in_work_comes_right_after(serve, start, pool):
    """It is inserted while the answer for another one is awaited."""
    world = await serve(latency_seconds=1)
    await world.add_account("ana", videos=1)
    daemon = await start(world, poll_seconds=NEVER)
    await hears(daemon)

    async def leased():
        return await pool.fetchval("SELECT lease_expires_at FROM refresher.accounts")

    await eventually(leased, "an account in work")
    await world.add_videos("ana", 1)
    await world.until_valid(2)


async def test_several_replicas_hear(serve, start, pool):
    """Each video is asked for once; each account is worked by one of them."""
    world = await serve()
    names = [f"account-{number}" for number in range(20)]
    for name in names:
        await world.add_account(name, videos=1)
    daemons = [await start(world, poll_seconds=NEVER) for _ in range(3)]
    for daemon in daemons:
        await hears(daemon)
    await world.until_valid(20)
    await world.until_no_leases()
    before = len(world.emulator.record)
    await asyncio.gather(*(world.add_videos(name, 1) for name in names))
    await world.until_valid(40)
    asked = [one for arrival in list(world.emulator.record)[before:] for one in arrival.video_ids]
    new = {row[0] for row in await pool.fetch("SELECT video_id FROM refresher.videos")}
    assert set(asked) <= new
    assert len(world.emulator.record) - before <= 20


async def test_a_server_that_restarts_is_listened_to_again(serve, start):
    """The connection is lost, the daemon says so, and hears again when the server is back."""
    beside = await serve()
    with faults.own_server() as server:
        await migrate(server.url)
        async with faults.looking(beside, server.url) as world:
            await world.add_account("ana", videos=1)
            daemon = await start(world, database_url=server.url, poll_seconds=NEVER)
            await hears(daemon)
            await asyncio.to_thread(server.restart, "immediate")
            await faults.until_up(server.url)
            await hears(daemon, times=2)
            await faults.until_valid(world, 1)
            await world.add_videos("ana", 1)
            await faults.until_valid(world, 2)
            assert daemon.events("notifications.missed")[0]["reason"] == LOST
            assert await daemon.stopped() == 0


async def test_a_connection_that_goes_silent_is_left(own_server, monkeypatch):
    """What is sent over the pool does not come back over it: another one is opened."""
    monkeypatch.setattr(listening_module, "PROVE_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(listening_module, "PROOF_SECONDS", 0.5)
    heard = asyncio.Event()
    async with (
        connected(own_server.url, application_name="tests") as pool,
        Proxy("127.0.0.1", own_server.port) as proxy,
        connected(own_server.url_of("postgres", proxy.port), application_name="tests") as beside,
    ):
        monkeypatch.setattr(listening_module, "opened_beside", lambda _: opened_beside(beside))
        listens = asyncio.create_task(
            Listener(pool, sessions(pool), heard.set, lambda _: None).run()
        )
        await asyncio.wait_for(heard.wait(), PATIENCE_SECONDS)
        accepted = proxy.accepted
        proxy.freeze()

        async def connects_again():
            return proxy.accepted > accepted

        await eventually(connects_again, "another connection")
        proxy.thaw()
        heard.clear()
        await asyncio.wait_for(heard.wait(), PATIENCE_SECONDS)
        listens.cancel()


async def test_where_transactions_are_prepared_nothing_is_notified(serve, start):
    """One that has notified could not be prepared. The daemon says that it polls."""
    beside = await serve()
    with faults.own_server() as server:
        await administer(server.url, "ALTER SYSTEM SET max_prepared_transactions = 5")
        await asyncio.to_thread(server.restart, "fast")
        await migrate(server.url)
        async with faults.looking(beside, server.url) as world:
            await world.add_account("ana", videos=1)
            daemon = await start(world, database_url=server.url, poll_seconds=0.5)
            await faults.until_valid(world, 1)
            await world.until_no_leases()
            await administer(
                server.url,
                "BEGIN; INSERT INTO refresher.videos VALUES ('ana', 'new');"
                " PREPARE TRANSACTION 'theirs'",
                "COMMIT PREPARED 'theirs'",
            )
            await eventually(lambda: _told(daemon, "notifications.missed", 1), "a word of it")
            assert daemon.events("notifications.missed")[0]["reason"] == TWO_PHASE
            assert daemon.events("notifications.received") == []


@pytest.mark.skipif(not faults.pgbouncer_program(), reason="PgBouncer is not installed")
@pytest.mark.parametrize(("mode", "delivers"), [("transaction", False), ("session", True)])
async def test_a_pooler_shows_whether_it_delivers(serve, start, own_server, mode, delivers):
    """Covers come in either mode: by the poll where the notifications do not."""
    beside = await serve()
    async with (
        migrated(own_server) as database,
        faults.pgbouncer(own_server, f"pool_mode = {mode}", "default_pool_size = 20") as port,
        faults.looking(beside, own_server.url_of(database)) as world,
    ):
        await world.add_account("ana", videos=1)
        url = own_server.url_of(database, port)
        daemon = await start(world, database_url=url, poll_seconds=0.5)
        said, other = "notifications.received", "notifications.missed"
        if not delivers:
            said, other = other, said
        await eventually(lambda: _told(daemon, said, 1), said)
        # Only a connection that leads to one process of the server is a session.
        session = await world.pool.fetchval("SELECT session FROM refresher.replicas")
        assert (session is not None) == delivers
        await world.until_valid(1)
        await world.add_videos("ana", 1)
        await world.until_valid(2)
        assert daemon.events(other) == []
        if not delivers:
            assert daemon.events(said)[0]["reason"] == NOT_DELIVERED
        assert await daemon.stopped() == 0


async def test_a_role_with_few_connections_keeps_them_for_the_work(own_server):
    """With fewer than a replica opens at most, none is spent on listening."""
    name = f"few_{secrets.token_hex(4)}"
    await administer(own_server.url, f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 7")
    url = own_server.url.replace("//postgres@", f"//{name}@").replace("//postgres:", f"//{name}:")
    async with connected(url, application_name="tests") as pool:
        with pytest.raises(UnheardError, match="7 connections"):
            await Listener(pool, sessions(pool), lambda: None, lambda _: None)._listen()


# --- Applications that listen ---


async def test_applications_hear_which_covers_changed(serve, start, pool, database):
    """With the setting, each stored cover is told once; without a URL or a token."""
    world = await serve()
    ids = {name: await world.add_account(name, videos=45) for name in ("ana", "ben")}
    told = []
    connection = await asyncpg.connect(database)
    await connection.add_listener("refresher_covers", lambda *heard: told.append(heard[-1]))
    await start(world, notify_covers="true")
    await world.until_valid(90)

    async def all_told():
        return sum(len(json.loads(each)["video_ids"]) for each in told) >= 90

    await eventually(all_told, "all covers told")
    heard = [(each["open_id"], one) for each in map(json.loads, told) for one in each["video_ids"]]
    assert sorted(heard) == sorted((name, one) for name in ids for one in ids[name])
    assert not any("http" in each or "act." in each for each in told)
    await connection.close()


async def test_the_documented_example_hears_them(serve, start, pool, database, tmp_path):
    """The Python of docs/tables.md, as it stands there."""
    world = await serve()
    await world.add_account("ana")
    (example,) = [
        "\n".join(lines) for language, lines in blocks("docs/tables.md") if language == "python"
    ]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", example),
        env={**os.environ, "DATABASE_URL": database},
        stdout=asyncio.subprocess.PIPE,
    )
    try:

        async def listens():
            return await pool.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN %refresher_covers%'"
            )

        await eventually(listens, "a program that listens")
        await start(world, notify_covers="true")
        (video_id,) = await world.add_videos("ana", 1)
        line = await asyncio.wait_for(program.stdout.readline(), PATIENCE_SECONDS)
        assert line.decode().strip() == str([video_id])
    finally:
        program.kill()
        await program.wait()


async def test_a_full_queue_stops_no_write_back(serve, start, pool):
    """A listener that never reads has filled it: covers are stored, and the log says it once."""
    world = await serve()
    await pool.execute(
        # As it answers then; to fill the real one takes gigabytes.
        "CREATE FUNCTION refresher.pg_notification_queue_usage() RETURNS float8 LANGUAGE sql"
        " AS 'SELECT 0.9'"
    )
    name = await pool.fetchval("SELECT current_database()")
    await pool.execute(f"ALTER DATABASE {name} SET search_path = refresher, pg_catalog, public")
    for account_name in ("ana", "ben"):
        await world.add_account(account_name, videos=30)
    daemon = await start(world, notify_covers="true")
    await world.until_valid(60)
    await eventually(lambda: _told(daemon, "covers.unannounced", 1), "a word of it")
    (event,) = daemon.events("covers.unannounced")
    assert event["reason"] == QUEUE_FULL
