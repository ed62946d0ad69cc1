"""A replica that is gone holds up nobody: its session has ended, so its leases need no waiting."""

import signal
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from refresher.postgres.database import connected, opened_beside
from refresher.postgres.sessions import SETTLING_SECONDS, Sessions
from tests.conftest import administer, eventually
from tests.test_claims import account, replica, store

#: Leases that no test outlives.
LEASE_SECONDS = 3600


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def a_session(pool, name, clock=None):
    return Sessions(pool, name, "1", lease_seconds=LEASE_SECONDS, clock=clock or Clock())


@pytest.fixture
async def looking(pool):
    """How replica b looks for others, and its clock."""
    clock = Clock()
    sessions = a_session(pool, "b", clock)
    async with session_of(pool, sessions):
        clock.now += SETTLING_SECONDS
        yield sessions, clock


@asynccontextmanager
async def session_of(pool, sessions):
    """A session that is held on a connection of its own, which is handed on."""
    connection = await opened_beside(pool)
    try:
        async with sessions.held(connection):
            yield connection
    finally:
        connection.terminate()


async def ended(pool, connection):
    """Wait until the server knows that the connection is gone."""
    process = connection.get_server_pid()
    connection.terminate()

    async def is_gone():
        return not await pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", process
        )

    await eventually(is_gone, "the end of a connection")


def unheard(open_id, error):
    pytest.fail(f"{open_id}: {error}")


async def look(sessions, refused=unheard):
    """Look, and end the leases of who is gone: how many, by replica."""
    return {
        replica: await sessions.end_leases(replica, session, refused)
        for session, replica in (await sessions.look()).items()
    }


async def test_leases_of_a_replica_that_is_gone_end(pool, looking):
    """By the second look. Slots, epoch and the note of a token request stay; others' leases, too."""
    sessions, _ = looking
    for name in ("ana", "ben"):
        await store(pool, name, 3)
    await replica(pool, "a", lease=LEASE_SECONDS).claim(10, only=["ana"])
    await replica(pool, "c", lease=LEASE_SECONDS).claim(10, only=["ben"])
    await pool.execute(
        "UPDATE refresher.accounts SET token_request_until = now() + interval '1 hour'"
    )
    before = {name: await account(pool, name) for name in ("ana", "ben")}
    async with session_of(pool, a_session(pool, "a")) as connection:
        assert [await look(sessions) for _ in range(3)] == [{}, {}, {}]
        await ended(pool, connection)
        assert await look(sessions) == {}
        assert await look(sessions) == {"a": 1}
    after = {name: await account(pool, name) for name in ("ana", "ben")}
    changed = {name for name, value in after["ana"].items() if value != before["ana"][name]}
    assert changed == {"lease_expires_at", "wake_at", "now"}
    assert after["ana"]["wake_at"] == after["ana"]["lease_expires_at"] <= after["ana"]["now"]
    assert {**after["ben"], "now": None} == {**before["ben"], "now": None}
    assert [await look(sessions) for _ in range(3)] == [{}, {}, {}]
    (claim,) = await replica(pool, "b").claim(10, only=["ana"])
    assert claim.lease_epoch == before["ana"]["lease_epoch"] + 1
    assert claim.first_slot >= before["ana"]["next_slot_at"]


async def test_a_replica_that_lives_after_all_loses_nothing(pool, looking):
    """Only its connection ended: it extends the lease, as nobody has claimed the account since."""
    sessions, _ = looking
    await store(pool, "ana", 3)
    holder = replica(pool, "a", lease=LEASE_SECONDS)
    (claim,) = await holder.claim(10)
    async with session_of(pool, a_session(pool, "a")) as connection:
        await ended(pool, connection)
        assert [await look(sessions) for _ in range(2)] == [{}, {"a": 1}]
    (left,) = await holder.extend([claim], unheard)
    assert left == LEASE_SECONDS
    assert await replica(pool, "b").claim(10) == []


async def test_a_wake_up_outlives_the_end_of_a_lease(pool, looking):
    """The holder lives and extends: its release still finds that somebody has inserted a video."""
    sessions, _ = looking
    await store(pool, "ana", 3)
    holder = replica(pool, "a", lease=LEASE_SECONDS)
    (claim,) = await holder.claim(10)
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, due_at)"
        " VALUES ('ana', 'new', now() + interval '20 minutes')"
    )
    async with session_of(pool, a_session(pool, "a")) as connection:
        await ended(pool, connection)
        assert [await look(sessions) for _ in range(2)] == [{}, {"a": 1}]
    await holder.extend([claim], unheard)
    row = await account(pool, "ana")
    assert row["wake_at"] < row["now"] < row["lease_expires_at"]


async def test_one_of_those_who_see_it_ends_the_leases(pool, looking):
    """The others have nothing to say."""
    sessions, _ = looking
    await store(pool, "ana", 3)
    await replica(pool, "a", lease=LEASE_SECONDS).claim(10)
    async with session_of(pool, a_session(pool, "a")) as connection:
        await ended(pool, connection)
        await sessions.look()
        ((session, gone),) = (await sessions.look()).items()
    assert [await sessions.end_leases(gone, session, unheard) for _ in range(2)] == [1, None]


async def test_a_replica_that_lives_without_its_session_takes_its_name_back(pool, looking):
    """Its connection is not to be had again: for longer than others wait."""
    sessions, _ = looking
    await store(pool, "ana", 3)
    await replica(pool, "a", lease=LEASE_SECONDS).claim(10)
    holder = a_session(pool, "a")
    async with session_of(pool, holder) as connection:
        await ended(pool, connection)
    assert await holder.look() == {}
    assert [await look(sessions) for _ in range(3)] == [{}, {}, {}]
    assert await pool.fetchval("SELECT session FROM refresher.replicas WHERE replica = 'a'") is None


async def test_a_replica_that_comes_back_at_the_last_moment_keeps_its_leases(pool, looking):
    """It names a new session when the old one was found to have ended."""
    sessions, _ = looking
    await store(pool, "ana", 3)
    await replica(pool, "a", lease=LEASE_SECONDS).claim(10)
    holder = a_session(pool, "a")
    async with session_of(pool, holder) as connection:
        await ended(pool, connection)
        await sessions.look()
        ((session, gone),) = (await sessions.look()).items()
        async with session_of(pool, holder):
            assert await sessions.end_leases(gone, session, unheard) is None
    assert (await account(pool, "ana"))["lease_expires_at"] > (await account(pool, "ana"))["now"]


async def test_a_replica_that_has_a_new_session_keeps_its_leases(pool, looking):
    """Its connection was lost for less than a look."""
    sessions, _ = looking
    await store(pool, "ana", 3)
    await replica(pool, "a", lease=LEASE_SECONDS).claim(10)
    holder = a_session(pool, "a")
    async with session_of(pool, holder) as connection:
        await ended(pool, connection)
        assert await look(sessions) == {}
        async with session_of(pool, holder):
            assert [await look(sessions) for _ in range(3)] == [{}, {}, {}]


async def test_who_has_a_new_session_judges_nobody(pool, looking):
    """After a restart of the server all sessions are gone: their replicas come back one by one."""
    sessions, clock = looking
    await store(pool, "ana", 3)
    await replica(pool, "a", lease=LEASE_SECONDS).claim(10)
    async with session_of(pool, a_session(pool, "a")) as connection:
        await ended(pool, connection)
        async with session_of(pool, sessions):
            assert [await look(sessions) for _ in range(3)] == [{}, {}, {}]
            clock.now += SETTLING_SECONDS
            assert [await look(sessions) for _ in range(2)] == [{}, {"a": 1}]
    assert [await look(sessions) for _ in range(2)] == [{}, {}]  # it has none itself


async def test_an_account_whose_lease_cannot_be_ended_costs_itself_only(pool, database, looking):
    """A trigger refuses it: the others are taken over, and it waits for its lease."""
    sessions, _ = looking
    for name in ("ana", "ben", "cid"):
        await store(pool, name, 3)
    await replica(pool, "a", lease=LEASE_SECONDS).claim(10)
    await administer(
        database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'not ben'; END $$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON refresher.accounts FOR EACH ROW"
        " WHEN (NEW.open_id = 'ben') EXECUTE FUNCTION refuse()",
    )
    refused = {}
    async with session_of(pool, a_session(pool, "a")) as connection:
        await ended(pool, connection)
        await look(sessions, refused.__setitem__)
        assert await look(sessions, refused.__setitem__) == {"a": 2}
    assert list(refused) == ["ben"]
    assert isinstance(refused["ben"], asyncpg.RaiseError)


async def test_a_role_that_may_not_say_its_session_has_none(pool, server, database):
    """What listens goes on: the heartbeat says that a right is missing."""
    await administer(
        database,
        "CREATE ROLE unheard LOGIN",
        "GRANT USAGE ON SCHEMA refresher TO unheard",
    )
    url = database.replace("//postgres@", "//unheard@").replace("//postgres:", "//unheard:")
    try:
        async with connected(url, application_name="tests") as theirs:
            sessions = a_session(theirs, "a")
            async with session_of(theirs, sessions):
                assert await look(sessions) == {}
    finally:
        await administer(database, "DROP OWNED BY unheard")
        await administer(server, "DROP ROLE unheard")
    assert await pool.fetchval("SELECT count(*) FROM refresher.replicas") == 0


@pytest.mark.long
async def test_accounts_of_a_killed_replica_are_worked_by_another(serve, start, pool):
    """Their leases would last an hour."""
    world = await serve(latency_seconds=1.0, rate_limit_per_token=60)
    settings = {
        "request_timeout_seconds": LEASE_SECONDS,
        "lease_seconds": LEASE_SECONDS,
        "rate_limit_per_token": 60,
    }
    other = await start(world, **settings)
    await other.until_event("notifications.received")
    await world.add_account("ana", 2000)
    killed = await start(world, **settings)

    async def leased():
        row = await account(pool, "ana")
        holder = row["lease_owner"] or ""
        return row["lease_expires_at"] and f"-{killed.process.pid}-" in holder

    other.process.send_signal(signal.SIGSTOP)
    await pool.execute("UPDATE refresher.accounts SET lease_expires_at = now(), wake_at = now()")
    await eventually(leased, "a lease of the replica that is to be killed")
    other.process.send_signal(signal.SIGCONT)
    assert (await account(pool, "ana"))["lease_expires_at"] > (
        (await account(pool, "ana"))["now"] + timedelta(seconds=LEASE_SECONDS / 2)
    )
    await killed.stopped(signal.SIGKILL)
    lost = await other.until_event("replica.lost")
    assert lost["accounts"] == 1
    valid = await world.valid()
    await world.until_valid(valid + 100)
    assert [arrival for arrival in world.emulator.record if arrival.breach] == []


@pytest.mark.long
async def test_a_paused_replica_keeps_its_leases(serve, start, pool):
    """Its session lasts: nobody takes over what it will go on with."""
    world = await serve(latency_seconds=0.5, rate_limit_per_token=60)
    settings = {"request_timeout_seconds": LEASE_SECONDS, "lease_seconds": LEASE_SECONDS}
    paused = await start(world, rate_limit_per_token=60, **settings)
    await world.add_account("ana", 2000)
    await eventually(world.valid, "a cover")
    paused.process.send_signal(signal.SIGSTOP)
    other, killed = [await start(world, rate_limit_per_token=60, **settings) for _ in range(2)]
    for daemon in (other, killed):
        await daemon.until_event("notifications.received")
    await killed.stopped(signal.SIGKILL)
    # By then the other one judges, and has judged the paused one, too.
    lost = await other.until_event("replica.lost")
    assert f"-{killed.process.pid}-" in lost["lost_replica"]
    assert len(other.events("replica.lost")) == 1
    assert (await account(pool, "ana"))["lease_expires_at"] > (await account(pool, "ana"))["now"]
    paused.process.send_signal(signal.SIGCONT)
    assert await paused.stopped() == 0
