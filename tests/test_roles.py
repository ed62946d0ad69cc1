"""Roles that may see, write or connect less than they need, and dumps that others restore."""

import asyncio
import secrets

import pytest

from refresher.postgres.database import DatabaseRefusedError, connected, connection
from refresher.postgres.migrate import migrate
from refresher.postgres.role import check_role, connection_limit
from tests import faults
from tests.conftest import administer


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
            async with connection(pool) as taken:
                assert await taken.fetchval("SELECT 1") == 1
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
    async with connected(target, application_name="tests") as pool, connection(pool) as taken:
        assert await check_role(pool) == []
        assert await taken.fetchval("SELECT count(*) FROM refresher.videos") == 1
        assert await taken.fetchval("SELECT count(*) FROM refresher.app") == 1
    await administer(own_server.url, f"DROP DATABASE {other} WITH (FORCE)")
