"""Roles that may see, write or connect less than they need, and dumps that others restore."""

import asyncio
import secrets
from contextlib import suppress
from time import monotonic

import pytest

from refresher.domain.errors import DatabaseUnavailable
from refresher.postgres.database import acquired, connected
from refresher.postgres.failures import ConnectionsUsedUpError, DatabaseRefusedError
from refresher.postgres.migrate import migrate
from refresher.postgres.opening import ACQUIRE_SECONDS
from refresher.postgres.role import check_role, connection_limit
from tests import faults
from tests.conftest import administer, eventually


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


@pytest.fixture
async def role(own_server, own_database):
    """A role that may read and write every row, and its URL."""
    name = f"role_{secrets.token_hex(4)}"
    await administer(
        own_server.url_of(own_database),
        f"CREATE ROLE {name} LOGIN",
        f"GRANT USAGE ON SCHEMA refresher TO {name}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA refresher TO {name}",
    )
    yield name, own_server.url_of(own_database).replace("postgres:", f"{name}:")
    await administer(own_server.url_of(own_database), f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def test_rows_that_are_all_hidden(own_server, own_database, role, start):
    """`run` and `status` end with the table's name; a policy for all rows is enough."""
    name, url = role
    past = own_server.url_of(own_database)
    await administer(past, "ALTER TABLE refresher.videos ENABLE ROW LEVEL SECURITY")
    for command in ("run", "status"):
        done = await start(command=command, database_url=url)
        assert await done.ended() == 2
        assert "hides every row of refresher.videos" in done.output.read_text()
    await administer(past, f"CREATE POLICY all_rows ON refresher.videos TO {name} USING (true)")
    async with connected(url, application_name="tests") as pool:
        assert await check_role(pool) == ["videos"]
    async with connected(past, application_name="tests") as pool:
        assert await check_role(pool) == []


async def test_one_connection_takes_turns(own_server, own_database, role, serve, start):
    """With CONNECTION LIMIT 1 all covers become fresh, and it is said once."""
    name, url = role
    await administer(own_server.url, f"ALTER ROLE {name} CONNECTION LIMIT 1")
    beside = await serve()
    async with faults.looking(beside, own_server.url_of(own_database)) as world:
        for number in range(5):
            await world.add_account(f"account-{number}", videos=60)
        daemon = await start(world, database_url=url, poll_seconds=0.2)
        await world.until_valid(300)
        await world.until_no_leases()
        assert await daemon.stopped() == 0
    (said,) = daemon.events("connections.limited")
    assert said["limit"] == 1
    assert daemon.events("database.lost") == []


@pytest.fixture(scope="module")
def several(own_server):
    """The server's addresses: alone, under two names, and with a standby beside it."""
    with faults.standby_of(own_server) as standby:
        alone = f"127.0.0.1:{own_server.port}"
        yield {
            "one": alone,
            "two names": f"{alone},localhost:{own_server.port}",
            "a standby": f"127.0.0.1:{standby.port},{alone}",
        }


@pytest.mark.parametrize("hosts", ["one", "two names", "a standby"])
async def test_all_take_turns_from_the_first_connection_on(own_server, several, hosts):
    """With CONNECTION LIMIT 1, nobody fails: not on an empty pool, nor with several hosts."""
    name = f"few_{secrets.token_hex(4)}"
    url = f"postgresql://{name}@{several[hosts]}/postgres?target_session_attrs=read-write"
    await administer(own_server.url, f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 1")

    async def ask(pool):
        async with acquired(pool) as connection:
            return await connection.fetchval("SELECT 1 FROM pg_sleep(0.3)")

    async def reaches():
        async with connected(url, application_name="tests") as pool:
            with suppress(DatabaseUnavailable):
                return await ask(pool)
        return None

    await eventually(reaches, "the role on the standby, too")
    async with connected(own_server.url_of("postgres"), application_name="tests") as others:

        async def has_gone():
            sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
            return await others.fetchval(sessions, name) == 0

        await eventually(has_gone, "the end of the first session, which counts until then")
    async with connected(url, application_name="tests") as pool:
        assert await asyncio.gather(*(ask(pool) for _ in range(4))) == [1] * 4


async def test_who_has_no_connection_at_all_hears_it_soon(own_server):
    """Where others hold the only one: all who ask fail together, and do not try again for long."""
    name = f"few_{secrets.token_hex(4)}"
    await administer(own_server.url, f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 1")
    url = own_server.url.replace("postgres:", f"{name}:")
    async with (
        connected(url, application_name="other") as other,
        acquired(other),
        connected(url, application_name="tests") as pool,
    ):

        async def ask():
            async with acquired(pool):
                pass

        begun = monotonic()
        failures = await asyncio.gather(*(ask() for _ in range(5)), return_exceptions=True)
        assert {type(failure) for failure in failures} == {ConnectionsUsedUpError}
        assert monotonic() - begun < ACQUIRE_SECONDS / 2


@pytest.mark.parametrize("hosts", ["one", "two names", "a standby"])
@pytest.mark.parametrize("command", ["run", "status"])
async def test_a_role_that_only_reads_ends_the_start(
    own_server, own_database, role, several, start, hosts, command
):
    """Of however many hosts: to wait does not help."""
    name, _ = role
    await administer(own_server.url, f"ALTER ROLE {name} SET default_transaction_read_only = on")
    url = f"postgresql://{name}@{several[hosts]}/{own_database}"
    if hosts == "a standby":
        await eventually(
            lambda: knows(several[hosts], name, own_database), "a standby that follows"
        )
    done = await start(command=command, database_url=url)
    assert await done.ended() == 2
    assert "default_transaction_read_only is on" in done.output.read_text()


async def knows(hosts, name, own_database):
    """Whether the standby, which comes first, has heard of the role's setting."""
    url = f"postgresql://{name}@{hosts.partition(',')[0]}/{own_database}"
    with suppress(DatabaseUnavailable):
        async with connected(url, application_name="tests") as pool, acquired(pool) as connection:
            query = "SELECT count(*) FROM pg_db_role_setting WHERE setrole = $1::regrole"
            return await connection.fetchval(query, name)
    return False


async def test_no_limit_is_none(own_server, own_database, role):
    """Nothing is said of a role that may have enough."""
    _, url = role
    async with connected(url, application_name="tests") as pool:
        assert await connection_limit(pool) is None


async def test_a_role_that_only_reads(own_server, own_database, role):
    """default_transaction_read_only of a role is named."""
    name, url = role
    await administer(own_server.url, f"ALTER ROLE {name} SET default_transaction_read_only = on")
    async with connected(url, application_name="tests") as pool:
        with pytest.raises(DatabaseRefusedError, match="default_transaction_read_only is on"):
            await check_role(pool)


async def test_sessions_that_end_when_idle(own_server, own_database, role):
    """The next statement opens another one."""
    name, url = role
    await administer(own_server.url, f"ALTER ROLE {name} SET idle_session_timeout = '100ms'")
    async with connected(url, application_name="tests") as pool:
        for _ in range(3):
            async with acquired(pool) as connection:
                assert await connection.fetchval("SELECT 1") == 1
            await asyncio.sleep(0.4)  # the server ends the session
        assert pool.get_size() == 0


async def test_migrate_with_the_schema_alone(own_server, start):
    """No CREATE on the database where the schema is there; at head no right to create at all."""
    name, database = f"role_{secrets.token_hex(4)}", f"test_{secrets.token_hex(4)}"
    await administer(own_server.url, f"CREATE ROLE {name} LOGIN", f"CREATE DATABASE {database}")
    past = own_server.url_of(database)
    url = past.replace("postgres:", f"{name}:")
    await administer(past, f"CREATE SCHEMA refresher AUTHORIZATION {name}")
    assert await (await start(command="migrate", database_url=url)).ended() == 0
    await administer(
        past,
        "ALTER SCHEMA refresher OWNER TO postgres",
        f"GRANT USAGE ON SCHEMA refresher TO {name}",
    )
    again = await start(command="migrate", database_url=url)
    assert await again.ended() == 0
    assert again.output.read_text() == "nothing to migrate\n"
    await administer(own_server.url, f"DROP DATABASE {database} WITH (FORCE)", f"DROP ROLE {name}")


@pytest.mark.skipif(
    not (faults.programs() / "pg_dump").exists(), reason="no pg_dump beside the server"
)
@pytest.mark.parametrize("data_only", [False, True], ids=["whole, another owner", "data only"])
async def test_a_dump_is_restored(own_server, own_database, role, data_only, tmp_path):
    """By another owner, and into tables that have three rows of their own already."""
    name, _ = role
    past, other = own_server.url_of(own_database), f"test_{secrets.token_hex(4)}"
    await administer(
        past,
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'act.x')",
        "INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', '7')",
    )
    await administer(own_server.url, f"CREATE DATABASE {other} OWNER {name}")
    target = own_server.url_of(other).replace("postgres:", f"{name}:")
    with faults.folder_for_servers() as folder:
        dump = folder / "dump"
        kind = ("--data-only",) if data_only else ("--no-owner", "--no-privileges")
        faults.run(faults.programs() / "pg_dump", "-Fc", *kind, "-n", "refresher", "-f", dump, past)
        if data_only:
            await migrate(target)
            await administer(
                target, "TRUNCATE refresher.app, refresher.audit, refresher.alembic_version"
            )
        faults.run(faults.programs() / "pg_restore", "--exit-on-error", *kind, "-d", target, dump)
    assert await migrate(target) is False
    async with connected(target, application_name="tests") as pool, acquired(pool) as connection:
        assert await check_role(pool) == []
        assert await connection.fetchval("SELECT count(*) FROM refresher.videos") == 1
        assert await connection.fetchval("SELECT count(*) FROM refresher.app") == 1
    await administer(own_server.url, f"DROP DATABASE {other} WITH (FORCE)")
