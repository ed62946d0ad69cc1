"""`refresher migrate --video-partitions`: videos partitioned by open_id, and all works as before."""

import asyncio
import secrets
from functools import partial

import asyncpg
import pytest
from alembic import command
from alembic.script import ScriptDirectory

from refresher.domain.errors import DatabaseBusy
from refresher.postgres import partitioning
from refresher.postgres.migrate import migrate, migrations_folder
from refresher.postgres.partitioning import PartitioningRefusedError
from tests.conftest import eventually, partition_videos

PARTITIONS = 4


@pytest.fixture
async def partitioned(database):
    await partition_videos(database, PARTITIONS)


async def partitions(pool):
    return await pool.fetchval(*partitioning.PARTITIONS())


# What an application, an operator or a later revision sees of the table, whatever holds its rows.
# The names of NOT NULL constraints are nobody's business.
SQL_DESCRIBED = """
SELECT 'column', attname, format_type(atttypid, atttypmod), attnotnull,
       pg_get_expr(adbin, adrelid), col_description(attrelid, attnum), attacl::text
FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
WHERE attrelid = 'refresher.videos'::regclass AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'constraint', conname, pg_get_constraintdef(oid), convalidated, NULL, NULL, NULL
FROM pg_constraint WHERE conrelid = 'refresher.videos'::regclass AND contype <> 'n'
UNION ALL
SELECT 'index', indexname, replace(indexdef, ' ON ONLY ', ' ON '), NULL, NULL, NULL, NULL
FROM pg_indexes WHERE schemaname = 'refresher' AND tablename = 'videos'
UNION ALL
SELECT 'trigger', tgname, pg_get_triggerdef(oid), NULL, tgenabled::text, NULL, NULL
FROM pg_trigger WHERE tgrelid = 'refresher.videos'::regclass AND NOT tgisinternal
UNION ALL
SELECT 'right', grantee::regrole::text, privilege_type, is_grantable, NULL, NULL, NULL
FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner)))
WHERE pg_class.oid = 'refresher.videos'::regclass
UNION ALL
SELECT 'table', relowner::regrole::text, obj_description(oid), NULL, NULL, NULL, NULL
FROM pg_class WHERE oid = 'refresher.videos'::regclass
"""

SQL_STORAGE = """
SELECT DISTINCT c.reloptions, toast.reloptions, c.relowner::regrole::text
FROM pg_class AS c JOIN pg_class AS toast ON toast.oid = c.reltoastrelid
WHERE c.relkind = 'r' AND c.relnamespace = 'refresher'::regnamespace AND c.relname LIKE 'videos%'
"""


async def described(pool):
    rows = await pool.fetch(SQL_DESCRIBED) + await pool.fetch(SQL_STORAGE)
    return {str(tuple(row)) for row in rows}


async def store(pool, accounts, videos_each):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id) SELECT 'account-' || n"
        " FROM generate_series(1, $1::integer) AS n",
        accounts,
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, misses, cover_image_url)"
        " SELECT 'account-' || a, v::text, a % 7, CASE WHEN v % 2 = 0 THEN 'https://' || v END"
        " FROM generate_series(1, $1::integer) AS a, generate_series(1, $2::integer) AS v",
        accounts,
        videos_each,
    )


async def test_rows_are_kept_and_spread(database, pool):
    """Every row is there as it was, in the partition of its account; a second call does nothing."""
    await store(pool, accounts=200, videos_each=5)
    every_row = "SELECT * FROM refresher.videos ORDER BY open_id, video_id"
    before = await pool.fetch(every_row)
    assert await partition_videos(database, PARTITIONS) == 1000
    assert await partition_videos(database, PARTITIONS) is None
    assert await pool.fetch(every_row) == before
    assert await partitions(pool) == PARTITIONS
    assert (
        await pool.fetchval("SELECT count(DISTINCT tableoid) FROM refresher.videos") == PARTITIONS
    )
    assert await pool.fetchval("SELECT to_regnamespace('refresher_set_aside')") is None


async def test_whatever_belongs_to_the_table_is_kept(database, pool):
    """Keys, checks, triggers, comments, rights and storage: ours, and what others have added."""
    shop, owner = f"shop_{secrets.token_hex(4)}", f"owner_{secrets.token_hex(4)}"
    await pool.execute(f"""
        CREATE ROLE {shop};
        CREATE ROLE {owner};
        GRANT CREATE ON SCHEMA refresher TO {owner};
        ALTER TABLE refresher.videos OWNER TO {owner};
        ALTER DEFAULT PRIVILEGES IN SCHEMA refresher GRANT TRUNCATE ON TABLES TO {shop};
        ALTER TABLE refresher.videos SET (autovacuum_vacuum_cost_delay = 1,
                                          toast.autovacuum_enabled = off);
        ALTER TABLE refresher.videos ADD passing text;
        ALTER TABLE refresher.videos
            DROP passing,
            ADD "Shop's" text DEFAULT 'it''s' CHECK ("Shop's" <> ''),
            ADD UNIQUE ("Shop's", open_id);
        CREATE INDEX by_shop ON refresher.videos ("Shop's") WITH (fillfactor = 50)
            WHERE "Shop's" IS NOT NULL;
        GRANT SELECT ON refresher.videos TO {shop} WITH GRANT OPTION;
        GRANT INSERT ON refresher.videos TO PUBLIC;
        GRANT UPDATE ("Shop's") ON refresher.videos TO {shop};
        COMMENT ON TABLE refresher.videos IS 'it''s ours';
        COMMENT ON COLUMN refresher.videos.due_at IS 'when';
        CREATE FUNCTION refresher.note() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER noted BEFORE UPDATE ON refresher.videos
            FOR EACH ROW EXECUTE FUNCTION refresher.note();
        CREATE TRIGGER asleep AFTER DELETE ON refresher.videos
            FOR EACH STATEMENT EXECUTE FUNCTION refresher.note();
        ALTER TABLE refresher.videos DISABLE TRIGGER asleep;
    """)
    try:
        before = await described(pool)
        await partition_videos(database, PARTITIONS)
        assert before ^ await described(pool) == set()
        granted = "SELECT has_table_privilege($1, 'refresher.videos_0', 'TRUNCATE')"
        assert not await pool.fetchval(granted, shop)
    finally:
        await pool.execute(f"REASSIGN OWNED BY {shop}, {owner} TO CURRENT_USER")
        await pool.execute(f"DROP OWNED BY {shop}, {owner}; DROP ROLE {shop}, {owner}")


async def test_it_may_be_started_in_several_places_at_once(database, pool):
    """One does it, the others find it done."""
    done = await asyncio.gather(*(partition_videos(database, PARTITIONS) for _ in range(3)))
    assert sorted(done, key=str) == [0, None, None]


async def test_a_new_database_is_partitioned_at_once(empty_database):
    """The migrated schema is the same but for what holds the rows."""
    await migrate(empty_database)
    assert await partition_videos(empty_database, 100) == 0


REVISIONS = [
    script.revision
    for script in ScriptDirectory(str(migrations_folder())).walk_revisions()
    if not script.is_head
]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_later_revisions_work_on_partitioned_videos(
    database, pool, empty_database, monkeypatch, revision
):
    """Partitioned first and migrated then, the tables are those of a database migrated first."""
    await partition_videos(database, PARTITIONS)
    upgrade = command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", lambda config, _head: upgrade(config, revision))
        await migrate(empty_database)
    await partition_videos(empty_database, PARTITIONS)
    await migrate(empty_database)
    async with asyncpg.create_pool(empty_database, min_size=1, max_size=1) as other:
        assert await described(other) ^ await described(pool) == set()


@pytest.mark.parametrize(
    ("obstacle", "told"),
    [
        ("CREATE VIEW public.shown AS SELECT video_id FROM refresher.videos", "view shown"),
        (
            "CREATE TABLE public.liked (a text, b text, FOREIGN KEY (a, b) REFERENCES refresher.videos)",
            "constraint liked_a_b_fkey on table liked",
        ),
        ("ALTER TABLE refresher.videos ENABLE ROW LEVEL SECURITY", "row-level security"),
        ("ALTER TABLE refresher.videos REPLICA IDENTITY FULL", "a replica identity"),
        ("CREATE UNIQUE INDEX ON refresher.videos (video_id)", "a unique index without open_id"),
        (
            "CREATE TRIGGER again AFTER INSERT ON refresher.videos REFERENCING NEW TABLE AS added FOR EACH ROW EXECUTE FUNCTION refresher.wake_accounts()",
            "a trigger for each row with a transition table",
        ),
    ],
    ids=["view", "foreign key", "row security", "replica identity", "unique", "transition table"],
)
async def test_what_would_be_lost_stands_in_the_way(database, pool, obstacle, told):
    """It is named, and nothing has changed."""
    await pool.execute(obstacle)
    before = await described(pool)
    with pytest.raises(PartitioningRefusedError, match=told):
        await partition_videos(database, PARTITIONS)
    assert await described(pool) == before


async def test_the_command_says_what_it_did(start, pool):
    """Exit 0 and one line, or none where nothing was to do; another number is refused."""
    await store(pool, accounts=3, videos_each=2)
    told = []
    for number in (PARTITIONS, PARTITIONS, PARTITIONS + 1):
        daemon = await start(command=f"migrate --video-partitions {number}")
        told.append((await daemon.ended(), daemon.output.read_text()))
    assert told == [
        (0, "6 videos in 4 partitions\n"),
        (0, "already in 4 partitions\n"),
        (2, "refresher: refresher.videos has 4 partitions: expected these or none, not 5\n"),
    ]


async def test_a_lock_that_is_not_to_be_had_is_given_up(database, pool, monkeypatch):
    """Nothing has changed, and nobody waits behind us any longer."""
    monkeypatch.setattr(partitioning, "LOCK_TRIES", 2)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM refresher.videos")
        with pytest.raises(DatabaseBusy):
            await partition_videos(database, PARTITIONS)
    assert await partitions(pool) is None


async def test_an_application_is_never_the_one_to_fail(database, pool):
    """Its transaction holds videos and then wants accounts, which we hold: we step back."""
    await store(pool, accounts=1, videos_each=1)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE refresher.videos SET missing_since = now()")
        partitioning_ = asyncio.create_task(partition_videos(database, PARTITIONS))
        await eventually(partial(_holds_accounts, pool), "the lock of accounts")
        await connection.execute("INSERT INTO refresher.videos VALUES ('account-1', '2')")
    assert await partitioning_ == 2


async def _holds_accounts(pool):
    return await pool.fetchval(
        "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'"
        " AND relation = 'refresher.accounts'::regclass AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


async def test_a_running_daemon_lives_through_it(serve, start, database):
    """Its videos are kept fresh, and the ones that an application adds meanwhile and after."""
    world = await serve(cover_ttl=12)
    for number in range(10):
        await world.add_account(f"account-{number}", videos=40)
    daemon = await start(world)
    await world.until_valid(400)

    async def add_videos():
        for number in range(10):
            await world.add_videos(f"account-{number}", 1)

    await asyncio.gather(partition_videos(database, PARTITIONS), add_videos())
    await world.add_videos("account-0", 20)
    await world.until_valid(430)
    refreshed = len(daemon.events("account.refreshed"))
    await daemon.until_event("account.refreshed", refreshed + 10)
    assert await daemon.stopped() == 0
    assert not daemon.events("account.failed")
    assert not daemon.events("loop.failed")


@pytest.mark.usefixtures("partitioned")
async def test_everything_due_is_refreshed_in_place(serve, start, pool):
    """`once` ends with every cover fresh; each update was HOT; the counts are those of the rows."""
    world = await serve()
    for number in range(20):
        await world.add_account(f"account-{number}", videos=40)
    daemon = await start(world, command="once")
    assert await daemon.ended() == 0
    assert await world.valid() == 800
    stored = await pool.fetch("SELECT videos, valid FROM refresher.accounts")
    assert {tuple(row) for row in stored} == {(40, 40)}
    assert await pool.fetchrow(SQL_UPDATES) == (800, 800)


SQL_UPDATES = """
SELECT sum(n_tup_upd)::integer, sum(n_tup_hot_upd)::integer
FROM pg_stat_user_tables
WHERE relname LIKE 'videos%'
"""


@pytest.mark.usefixtures("partitioned")
async def test_an_application_adds_and_removes_as_before(serve, start, pool, tmp_path):
    """Its INSERT wakes the account, an import stores, and an account takes its videos along."""
    world = await serve()
    await world.add_account("ana", videos=3)
    await world.add_account("ben")
    daemon = await start(world)
    await world.until_valid(3)
    await world.until_no_leases()
    await world.add_videos("ana", 2)
    await world.until_valid(5)
    (tmp_path / "videos.csv").write_text("open_id,video_id\nben,1\nana,2\nben,1\n")
    refused = await start(command="videos import videos.csv")
    assert await refused.ended() == 2
    (tmp_path / "videos.csv").write_text("open_id,video_id\nben,1\nana,2\n")
    imported = await start(command="videos import videos.csv")
    assert await imported.ended() == 0
    assert await pool.fetchval("SELECT count(*) FROM refresher.videos") == 7
    assert await daemon.stopped() == 0
    await pool.execute("DELETE FROM refresher.accounts WHERE open_id = 'ana'")
    assert await pool.fetchval("SELECT count(*) FROM refresher.videos") == 1
    told = await start(command="status --json")
    assert await told.ended() == 0


@pytest.mark.usefixtures("partitioned")
async def test_the_database_refuses_what_cannot_be_worked(pool):
    """As of a table that is not partitioned."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    for values in ("'nobody', '1'", "'ana', ''", "'ana', repeat('7', 21)"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await pool.execute(f"INSERT INTO refresher.videos VALUES ({values})")
    await pool.execute("INSERT INTO refresher.videos VALUES ('ana', '1')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute("INSERT INTO refresher.videos VALUES ('ana', '1')")
