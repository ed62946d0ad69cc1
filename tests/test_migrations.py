"""The schema as our migrations make it."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from refresher.postgres.database import (
    SCHEMA_REVISION,
    SchemaNotMigratedError,
    check_migrated,
    connected,
)
from refresher.postgres.migrate import migrate, migrations_folder
from tests.conftest import administer, eventually, partition_videos
from tests.faults import own_server
from tests.test_previous_version import migrate_to

CONTRACT = {
    "accounts": {
        "open_id": "text",
        "access_token": "text",
        "access_token_expires_at": "timestamp with time zone",
        "refresh_token": "text",
        "refresh_token_expires_at": "timestamp with time zone",
        "scope": "text",
        "state": "text",
        "state_reason": "text",
        "state_since": "timestamp with time zone",
    },
    "videos": {
        "open_id": "text",
        "video_id": "text",
        "cover_image_url": "text",
        "cover_expires_at": "timestamp with time zone",
        "refreshed_at": "timestamp with time zone",
        "missing_since": "timestamp with time zone",
        "gone_at": "timestamp with time zone",
    },
}


async def test_starting_in_several_places_at_once_migrates_once(empty_database):
    """Each call succeeds, and the schema is there."""
    await asyncio.gather(*(migrate(empty_database) for _ in range(4)))
    async with connected(empty_database, application_name="tests") as pool:
        await check_migrated(pool)


async def test_an_empty_database_is_told_apart(empty_database):
    """The message says what is expected and which command helps."""
    async with connected(empty_database, application_name="tests") as pool:
        with pytest.raises(SchemaNotMigratedError, match="run refresher migrate"):
            await check_migrated(pool)


def test_the_code_knows_the_newest_revision():
    """SCHEMA_REVISION is raised with the revision that the code needs."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_REVISION


def test_contributors_are_told_the_next_number():
    """The command of CONTRIBUTING.md makes the revision after the newest."""
    told = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    assert f"alembic revision --rev-id {int(SCHEMA_REVISION) + 1:04} " in told


@pytest.mark.parametrize("table", CONTRACT)
async def test_the_contracts_columns_are_there(pool, table):
    """Other programs rely on their names and types."""
    rows = await pool.fetch(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'refresher' AND table_name = $1",
        table,
    )
    assert CONTRACT[table].items() <= {tuple(row) for row in rows}


async def test_no_index_covers_what_a_refresh_writes(pool):
    """The tables' indexes are the keys, and the small one that the claim lives on."""
    rows = await pool.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'refresher'"
    )
    assert {row["indexname"] for row in rows} == {
        "accounts_pkey",
        "accounts_wake_at",
        "accounts_tokens_ignored",
        "outbox_pkey",
        "outbox_next_attempt_at",
        "outbox_open_id",
        "used_tokens_pkey",
        "videos_pkey",
        "app_pkey",
        "audit_pkey",
        "replicas_pkey",
        "cover_hosts_pkey",
        "probes_probed_at",
        "probing_pkey",
        "alembic_version_pkc",
        "attachments_pkey",
        "attachments_name_key",
        "attached_tokens_pkey",
        "changed_rows_pkey",
        "changed_covers_pkey",
    }
    (key,) = [row["indexdef"] for row in rows if row["indexname"] == "videos_pkey"]
    assert key.endswith("(open_id, video_id)")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO refresher.videos VALUES ('nobody', '1')",
        "INSERT INTO refresher.videos VALUES ('ana', '')",
        "INSERT INTO refresher.videos VALUES ('ana', repeat('7', 21))",
        "INSERT INTO refresher.accounts (open_id) VALUES ('')",
        "UPDATE refresher.accounts SET state = 'asleep'",
    ],
    ids=["no account", "empty id", "21 digits", "empty open_id", "unknown state"],
)
async def test_the_database_refuses_what_cannot_be_worked(pool, statement):
    """Bad rows fail where they are written, in the application."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await pool.execute(statement)


async def test_applications_inserting_in_any_order_do_not_deadlock(pool):
    """Two transactions over the same accounts, in opposite order, both commit."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, wake_at)"
        " SELECT 'account-' || n, 'infinity' FROM generate_series(1, 50) AS n"
    )

    async def insert(order, prefix):
        await pool.execute(
            "INSERT INTO refresher.videos (open_id, video_id)"
            f" SELECT 'account-' || n, $1 || n FROM generate_series(1, 50) AS n ORDER BY n {order}",
            prefix,
        )

    for round_ in range(10):
        await asyncio.gather(insert("ASC", f"a{round_}-"), insert("DESC", f"b{round_}-"))
    assert await pool.fetchval("SELECT count(*) FROM refresher.videos") == 1000


# --- Triggers for rows that come by logical replication ---

SQL_MODES = """
SELECT tgrelid::regclass::text, tgname, tgenabled::text FROM pg_trigger
WHERE tgrelid::regclass::text ~ '^refresher[.]' AND NOT tgisinternal
ORDER BY 1, 2
"""
ENABLED = {
    "all": "ALTER TABLE {0} DISABLE TRIGGER ALL; ALTER TABLE {0} ENABLE TRIGGER ALL",
    "user": "ALTER TABLE {0} DISABLE TRIGGER USER; ALTER TABLE {0} ENABLE TRIGGER USER",
}


@pytest.mark.parametrize("enable", ENABLED.values(), ids=ENABLED)
@pytest.mark.parametrize("partitions", [0, 3])
async def test_triggers_fire_for_replicated_rows_again(database, pool, enable, partitions):
    """A restore of data only enables them as all others; migrate puts ours right, and only ours."""
    if partitions:
        await partition_videos(database, partitions)
    await pool.execute(
        "CREATE FUNCTION public.mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER mine AFTER INSERT ON refresher.videos"
        " FOR EACH ROW EXECUTE FUNCTION public.mine()"
    )
    before = await pool.fetch(SQL_MODES)
    assert {mode for _, name, mode in before if name == "mine"} == {"O"}
    assert {mode for _, name, mode in before if name == "videos_replicated"} == {"R"}
    tables = ["accounts", "videos", *(f"videos_{number}" for number in range(partitions))]
    for table in tables:
        await pool.execute(enable.format(f"refresher.{table}"))
    assert {mode for _, _, mode in await pool.fetch(SQL_MODES)} == {"O"}
    assert not await migrate(database)
    assert await pool.fetch(SQL_MODES) == before


async def test_a_trigger_that_is_disabled_stays_so(database, pool):
    """Whoever loads data beside a starting daemon has disabled them all for a while."""
    await pool.execute("ALTER TABLE refresher.videos DISABLE TRIGGER USER")
    before = await pool.fetch(SQL_MODES)
    assert not await migrate(database)
    assert await pool.fetch(SQL_MODES) == before


# --- Beside an autovacuum ---

SQL_VACUUMS = """
SELECT count(*) FROM pg_stat_progress_vacuum WHERE datname = current_database()
"""


@asynccontextmanager
async def slow_autovacuum(url):
    """Of refresher.videos, at work: it would take minutes."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO refresher.accounts (open_id) VALUES ('a');"
            "INSERT INTO refresher.videos (open_id, video_id)"
            " SELECT 'a', n::text FROM generate_series(1, 30000) AS n;"
            "UPDATE refresher.videos SET misses = 1;"
            "ALTER TABLE refresher.videos SET (autovacuum_vacuum_cost_delay = 100,"
            " autovacuum_vacuum_cost_limit = 20, autovacuum_vacuum_threshold = 10,"
            " autovacuum_vacuum_scale_factor = 0)"
        )
        for statement in (
            "ALTER SYSTEM SET autovacuum_naptime = '1s'",
            "ALTER SYSTEM SET autovacuum = on",
            "SELECT pg_reload_conf()",
        ):
            await connection.execute(statement)

        async def goes_on():
            return await connection.fetchval(SQL_VACUUMS)

        await eventually(goes_on, "an autovacuum")
        yield
    finally:
        await connection.close()


@pytest.mark.long
@pytest.mark.parametrize("revision", ["0004", "0010"])
async def test_a_migration_ends_an_autovacuum(revision, monkeypatch):
    """It gives way only to who has waited for a second, which nobody is made to wait behind."""
    with own_server() as server:
        await administer(server.url, "CREATE DATABASE ours")
        ours = server.url_of("ours")
        await migrate_to(ours, revision, monkeypatch)
        async with slow_autovacuum(ours):
            assert await migrate(ours)
            assert not await migrate(ours)


#: Locks the tables as a claim does, and as long as a claim of many accounts may.
AS_A_CLAIM = """
WITH pace AS MATERIALIZED (SELECT next_slot_at, pg_sleep(0.05) FROM refresher.app)
UPDATE refresher.accounts SET lease_epoch = lease_epoch + 1 FROM pace
"""


async def test_replicas_claim_on_while_the_tables_are_altered(empty_database, monkeypatch):
    """None of their claims and not the migration itself ends in a deadlock."""
    await migrate_to(empty_database, "0011", monkeypatch)
    done = asyncio.Event()

    async def claim():
        claims = 0
        connection = await asyncpg.connect(empty_database)
        while not done.is_set():
            await connection.execute(AS_A_CLAIM)
            claims += 1
        await connection.close()
        return claims

    async with asyncio.TaskGroup() as tasks:
        claiming = [tasks.create_task(claim()) for _ in range(6)]
        await migrate(empty_database)
        done.set()
    assert all(task.result() for task in claiming)
    async with connected(empty_database, application_name="tests") as pool:
        await check_migrated(pool)
