"""Several cells in one database: a schema each, with daemons of its own."""

import json

import asyncpg
import pytest

from refresher.domain.schema_name import LONGEST_NAME, WORDS
from refresher.postgres.attached import apply_told, read_attachments
from refresher.postgres.database import SCHEMA_REVISION, connected
from refresher.postgres.migrate import migrate
from refresher.postgres.naming import named
from refresher.postgres.partitioning import count_partitions, partition_videos
from tests.conftest import World, administer
from tests.test_attach import APPLICATION, attach, unnoted

CELL = "cell_1"
#: As long as a name may be.
LONG = "c" * LONGEST_NAME
#: No test waits for such a poll.
NEVER = 3600


@pytest.fixture
async def cell(database):
    """A pool for a second cell in the database of this test."""
    await migrate(database, CELL)
    async with connected(database, schema=CELL, application_name="tests") as pool:
        yield pool


# All that a revision makes in a schema, as the server writes it.
SQL_MADE = """
WITH ours AS (
    SELECT oid, relname, reloptions FROM pg_class WHERE relnamespace = $1::regnamespace
)
SELECT proname::text, pg_get_functiondef(oid) AS definition
FROM pg_proc WHERE pronamespace = $1::regnamespace
UNION ALL
SELECT tgname::text, pg_get_triggerdef(t.oid) || tgenabled::text
FROM pg_trigger AS t JOIN ours ON ours.oid = tgrelid WHERE NOT tgisinternal
UNION ALL
SELECT conname::text, pg_get_constraintdef(oid) || obj_description(oid)
FROM pg_constraint WHERE connamespace = $1::regnamespace
UNION ALL
SELECT relname::text, pg_get_indexdef(indexrelid) FROM pg_index JOIN ours ON ours.oid = indexrelid
UNION ALL
SELECT relname || '.' || attname,
       concat(format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid),
              col_description(attrelid, attnum))
FROM pg_attribute
JOIN ours ON ours.oid = attrelid
LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
WHERE attnum > 0
UNION ALL
SELECT relname::text, concat(reloptions, obj_description(oid)) FROM ours
"""


@pytest.mark.parametrize("schema", [CELL, LONG, "_"])
async def test_a_cell_is_made_like_any_other(schema, database):
    """Tables, indexes, triggers and functions: the same but for the name of the schema."""
    await migrate(database, schema)
    connection = await asyncpg.connect(database)
    usual = await connection.fetch(SQL_MADE, "refresher")
    made = await connection.fetch(SQL_MADE, schema)
    await connection.close()
    expected = {(name, definition and named(definition, schema)) for name, definition in usual}
    assert len(expected) > 200
    assert set(map(tuple, made)) == expected


async def test_each_cell_has_its_daemons(serve, cell, start):
    """Both refresh their own covers, wake at once for their own, and ask for none of the other's."""
    usual = await serve()
    other = World(usual.emulator, usual.base_url, cell, usual.ids)
    daemons = [
        await start(usual, poll_seconds=NEVER),
        await start(other, poll_seconds=NEVER, schema=CELL),
    ]
    for daemon in daemons:
        await daemon.until_event("notifications.received")
    await usual.add_account("ana", 30)
    await other.add_account("ben", 20)
    await usual.until_valid(30)
    await other.until_valid(20)
    for daemon in daemons:
        assert await daemon.stopped() == 0
    assert len(usual.emulator.record) == 3


async def test_commands_are_for_one_cell(cell, refresher):
    """That of `REFRESHER_SCHEMA`."""
    await cell.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('a', 'act.a')"
    )
    code, told, _ = await refresher("status", "--json", schema=CELL)
    assert (code, json.loads(told)["accounts"]["active"]) == (0, 1)
    code, told, _ = await refresher("status", "--json")
    assert (code, json.loads(told)["accounts"]["active"]) == (0, 0)


async def test_videos_of_a_cell_are_partitioned_alone(pool, cell, database):
    """The other cell's table stays as it is."""
    await partition_videos(database, 4, schema=CELL)
    assert await count_partitions(cell) == 4
    assert await count_partitions(pool) is None


async def test_a_cell_that_is_not_migrated_is_named(database, refresher):
    """One line, exit 2, and nothing is made."""
    code, out, err = await refresher("status", schema="cell_2")
    assert (code, out) == (2, "")
    assert err == (
        f"refresher: schema cell_2: expected revision {SCHEMA_REVISION} or newer, not an empty"
        " database; run refresher migrate\n"
    )


async def test_a_cell_that_was_renamed_is_another_cells(cell, database, refresher):
    """Its triggers write to the schema whose name it had."""
    await administer(database, f"ALTER SCHEMA {CELL} RENAME TO cell_2")
    code, out, err = await refresher("status", schema="cell_2")
    assert (code, out) == (2, "")
    assert err == (
        "refresher: schema cell_2: expected a cell of its own, but its triggers write to schema"
        f" {CELL}: it was renamed or copied; give it its name back\n"
    )


async def test_words_that_need_quotes_are_those_of_the_server(pool):
    """Of every version that we know."""
    words = await pool.fetch("SELECT word FROM pg_get_keywords() WHERE quote_ident(word) <> word")
    assert {word for (word,) in words} <= WORDS


async def test_tables_are_attached_to_a_cell(cell, database, refresher):
    """Its own functions keep them; `--print-sql` says them, and no other cell takes them over."""
    await administer(database, APPLICATION, "INSERT INTO users (tiktok_open_id) VALUES ('ana')")
    await administer(database, "INSERT INTO clips (user_id, tiktok_id) VALUES (1, '71'), (1, '72')")
    await cell.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    _, script, _ = await refresher(*attach(), "--print-sql", schema=CELL)
    assert f"FUNCTION {CELL}.attached_clips_told" in script
    assert "refresher." not in script
    code, _, err = await refresher(*attach(), schema=CELL)
    assert (code, unnoted(err)) == (0, "")
    assert await cell.fetchval("SELECT count(*) FROM refresher.videos") == 2
    await administer(database, "INSERT INTO clips (user_id, tiktok_id) VALUES (1, '73')")
    (attachment,) = await read_attachments(cell)
    changes, _ = await apply_told(cell, attachment, pytest.fail)
    assert changes.added == 1
    code, out, _ = await refresher("attach", "--table", "public.clips", "--check", schema=CELL)
    assert "its triggers are there" in out
    assert "its functions are those of this version" in out
    code, _, err = await refresher(*attach())
    assert code == 2
    assert f"which calls {CELL}.attached_clips_told" in err
    code, _, _ = await refresher("detach", "--table", "public.clips", schema=CELL)
    assert code == 0
    assert await cell.fetchval("SELECT count(*) FROM refresher.videos") == 0


async def test_words_of_an_application_stay_its_own(cell, database, refresher):
    """Also where they are the name that our schema usually has."""
    await administer(
        database,
        APPLICATION,
        "ALTER TABLE clips ADD COLUMN owner text",
        "INSERT INTO users (tiktok_open_id) VALUES ('ana')",
        "INSERT INTO clips (user_id, tiktok_id, owner)"
        f" VALUES (1, '71', 'refresher'), (1, '72', '{CELL}')",
    )
    await cell.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    code, _, err = await refresher(*attach(where="owner = 'refresher'"), schema=CELL)
    assert (code, unnoted(err)) == (0, "")
    assert await cell.fetchval("SELECT array_agg(video_id) FROM refresher.videos") == ["71"]


async def test_the_doctor_looks_at_one_cell(cell, database, refresher):
    """All of its checks, also those of samples: of a cell that stands alone."""
    await administer(database, "DROP SCHEMA refresher CASCADE")
    await cell.execute("INSERT INTO refresher.accounts (open_id, access_token) VALUES ('a', 'b')")
    await cell.execute(
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at)"
        " SELECT 'a', generate_series(1, 2000), 'https://x/1', now() + interval '1 hour'"
    )
    _, told, _ = await refresher("doctor", "--json", schema=CELL)
    unread = [one for one in json.loads(told)["findings"] if "could not" in one["text"]]
    assert unread == []
