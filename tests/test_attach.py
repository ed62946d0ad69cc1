"""`attach`: an application keeps its own table, and its covers are kept alive there."""

import asyncio
import secrets

import asyncpg
import pytest
from structlog.testing import capture_logs

from refresher.attachments import REST_SECONDS, Attachments
from refresher.postgres.attached import (
    Changes,
    apply_told,
    carry_told,
    read_attachments,
    walk_step,
)
from tests.conftest import administer, eventually

#: An application's tables, with a key that leads to the open_id.
APPLICATION = """
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tiktok_open_id text UNIQUE, seen_at timestamptz
);
CREATE TABLE clips (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    tiktok_id text NOT NULL,
    title text,
    cover_url text,
    cover_expires timestamptz,
    deleted_at timestamptz,
    UNIQUE (user_id, tiktok_id)
);
"""
MAPPING = {
    "table": "public.clips",
    "video-id": "tiktok_id",
    "account": "user_id",
    "account-table": "public.users",
    "open-id": "tiktok_open_id",
    "cover": "cover_url",
    "expires": "cover_expires",
    "where": "deleted_at IS NULL",
}


def attach(**changed):
    """The command line; an option that is None is left out."""
    options = MAPPING | {name.replace("_", "-"): value for name, value in changed.items()}
    given = [(f"--{name}", value) for name, value in options.items() if value is not None]
    return ("attach", *(word for pair in given for word in pair))


def unnoted(err):
    """The same without what is said of functions of a superuser: the tests attach as one."""
    kept = (line for line in err.splitlines(keepends=True) if "is a superuser; best" not in line)
    return "".join(kept)


async def add_user(pool, name, videos=(), *, known=True):
    """A user of the application with clips; known to the refresher, too. The user's ID."""
    user = await pool.fetchval("INSERT INTO users (tiktok_open_id) VALUES ($1) RETURNING id", name)
    await add_clips(pool, user, videos)
    if known:
        await pool.execute(
            "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, 'act.x')", name
        )
    return user


async def add_clips(pool, user, videos):
    await pool.execute(
        "INSERT INTO clips (user_id, tiktok_id) SELECT $1, unnest($2::text[])", user, list(videos)
    )


async def stored(pool):
    return {
        (row["open_id"], row["video_id"])
        for row in await pool.fetch("SELECT open_id, video_id FROM refresher.videos")
    }


async def wanted(pool):
    return {
        (row["tiktok_open_id"], row["tiktok_id"])
        for row in await pool.fetch(
            "SELECT tiktok_open_id, tiktok_id FROM clips JOIN users ON users.id = user_id"
            " WHERE deleted_at IS NULL AND tiktok_open_id IS NOT NULL"
        )
    }


async def until_agreed(pool):
    async def agreed():
        return await stored(pool) == await wanted(pool)

    await eventually(agreed, "the same videos on both sides")


async def until_covered(pool):
    """Each live clip has the cover of refresher.videos, and it is valid."""

    async def covered():
        return not await pool.fetchval(
            "SELECT count(*) FROM clips JOIN users ON users.id = user_id"
            " LEFT JOIN refresher.videos AS v ON v.open_id = tiktok_open_id"
            " AND v.video_id = tiktok_id"
            " WHERE deleted_at IS NULL AND tiktok_open_id IS NOT NULL"
            " AND (cover_url, cover_expires) IS DISTINCT FROM"
            " (v.cover_image_url, date_trunc('second', v.cover_expires_at))"
            " OR cover_expires < now()"
        )

    await eventually(covered, "each clip with the cover that is stored")


async def test_the_covers_of_a_table_are_kept_alive_in_its_own_columns(
    pool, serve, start, refresher
):
    """What is there is added at once; what the application changes then follows."""
    world = await serve(cover_ttl=7200)
    await pool.execute(APPLICATION)
    for name in ("ann", "bob"):
        world.emulator.add_account(name, f"act.{name}")
        ids = [str(next(world.ids)) for _ in range(30)]
        for video_id in ids:
            world.emulator.add_video(name, video_id)
        await add_user(pool, name, ids[:20], known=False)
        await pool.execute(
            "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, $2)",
            name,
            f"act.{name}",
        )
    code, out, err = await refresher(*attach())
    assert (code, unnoted(err)) == (0, "")
    assert out == (
        "attached public.clips: 40 videos added;"
        " the daemon writes covers into cover_url and cover_expires\n"
    )
    assert await stored(pool) == await wanted(pool)
    daemon = await start(world)
    await until_covered(pool)
    await add_clips(pool, 1, ids[20:])
    await pool.execute("DELETE FROM clips WHERE id <= 3")
    await pool.execute("UPDATE clips SET deleted_at = now() WHERE id BETWEEN 4 AND 6")
    await pool.execute(
        "UPDATE clips SET cover_url = 'http://old', title = 'saved whole' WHERE id = 9"
    )
    await until_agreed(pool)
    await until_covered(pool)
    assert await daemon.stopped() == 0


# --- What the application may do meanwhile ---


async def settled(pool, database, *, carries=True):
    """As a daemon does: everything that was told is applied and carried. What was done."""
    total, refused = Changes(), []
    for attachment in await read_attachments(pool):
        for step in (apply_told, carry_told) if carries and attachment.carries else (apply_told,):
            more = True
            while more:
                done, more = await step(pool, attachment, lambda *said: refused.append(said))
                total = total.plus(done)
    return total, refused


@pytest.fixture
async def attached(pool, refresher):
    """The application with two users and three clips each, attached."""
    await pool.execute(APPLICATION)
    await add_user(pool, "ann", ["1", "2", "3"])
    await add_user(pool, "bob", ["1", "5", "6"])
    code, _, err = await refresher(*attach())
    assert (code, unnoted(err)) == (0, "")
    return pool


CHANGES = {
    "insert": "INSERT INTO clips (user_id, tiktok_id) VALUES (1, '7'), (2, '8')",
    "delete": "DELETE FROM clips WHERE tiktok_id = '1'",
    "soft delete": "UPDATE clips SET deleted_at = now() WHERE id = 1",
    "taken out of the bin": "UPDATE clips SET deleted_at = CASE id WHEN 1 THEN now() END",
    "another ID": "UPDATE clips SET tiktok_id = 'x' || tiktok_id",
    "another user": "UPDATE clips SET user_id = 3 - user_id WHERE tiktok_id <> '1'",
    "merge": "MERGE INTO clips USING (VALUES (1, '1'), (1, '9')) AS n (u, t)"
    " ON user_id = u AND tiktok_id = t WHEN MATCHED THEN DELETE"
    " WHEN NOT MATCHED THEN INSERT (user_id, tiktok_id) VALUES (u, t)",
    "upsert": "INSERT INTO clips (user_id, tiktok_id) VALUES (1, '1'), (2, '9')"
    " ON CONFLICT (user_id, tiktok_id) DO UPDATE SET title = 'again'",
    "a user's end": "DELETE FROM users WHERE id = 1",
    "a user without TikTok": "UPDATE users SET tiktok_open_id = NULL WHERE id = 1",
    "users who change places": "UPDATE users SET tiktok_open_id = NULL WHERE id = 1;"
    "UPDATE users SET tiktok_open_id = 'ann' WHERE id = 2;"
    "UPDATE users SET tiktok_open_id = 'bob' WHERE id = 1",
    "truncate": "TRUNCATE clips",
    "truncate of all": "TRUNCATE clips, users",
    "rolled back": "BEGIN; DELETE FROM clips; ROLLBACK",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_the_application_changes_follows(attached, database, change):
    """Whatever the statement, both sides agree afterwards."""
    await attached.execute(CHANGES[change])
    await settled(attached, database)
    for attachment in await read_attachments(attached):
        if attachment.walked_at is None:  # after a TRUNCATE
            await walk_step(attached, attachment, lambda *_: None)
            await settled(attached, database)
    assert await stored(attached) == await wanted(attached)


UNTOLD = {
    "another column": "UPDATE clips SET title = 'new'",
    "saved whole": "UPDATE clips SET tiktok_id = tiktok_id, cover_url = cover_url",
    "a user's own columns": "UPDATE users SET seen_at = now()",
    "nothing": "DELETE FROM clips WHERE id = 0",
}


@pytest.mark.parametrize("change", UNTOLD)
async def test_what_changes_nothing_is_not_told(attached, change):
    """A statement that leaves videos, accounts and covers alone makes no work."""
    await attached.execute("DELETE FROM refresher.changed_rows")
    await attached.execute(UNTOLD[change])
    assert not await attached.fetchval("SELECT count(*) FROM refresher.changed_rows")


async def test_a_bulk_insert_is_told_in_a_few_rows(attached):
    """A thousand videos a row."""
    await attached.execute(
        "INSERT INTO clips (user_id, tiktok_id) SELECT 1, 'b' || n FROM generate_series(1, 2500) n"
    )
    told = await attached.fetch("SELECT video_ids FROM refresher.changed_rows ORDER BY id")
    assert sorted(len(row["video_ids"]) for row in told) == [500, 1000, 1000]
    assert {video_id for row in told for video_id in row["video_ids"]} == {
        f"b{n}" for n in range(1, 2501)
    }


async def test_a_bulk_update_is_told_once(attached):
    """By its first row, for all; the next statement again, also in the same call or a subtransaction."""
    await add_clips(attached, 1, [f"b{n}" for n in range(2500)])
    for statement, rows in (
        ("UPDATE clips SET deleted_at = now() WHERE user_id = 1", 3),
        ("UPDATE clips SET deleted_at = NULL WHERE user_id = 1", 3),
        (
            (
                "DO $$ BEGIN UPDATE clips SET tiktok_id = 'x' || id WHERE user_id = 2;"
                " UPDATE clips SET tiktok_id = 'y' || id WHERE user_id = 2; END $$"
            ),
            2,
        ),
        (
            (
                "BEGIN; SAVEPOINT a; UPDATE clips SET cover_url = 'u' WHERE user_id = 2;"
                " ROLLBACK TO a; UPDATE clips SET cover_url = 'v' WHERE user_id = 2; COMMIT"
            ),
            1,
        ),
    ):
        await attached.execute("DELETE FROM refresher.changed_rows")
        await attached.execute(statement)
        told = await attached.fetchval("SELECT count(*) FROM refresher.changed_rows")
        assert told == rows, statement


async def test_two_updates_of_a_transaction_that_begin_alike_are_both_told(attached, database):
    """As a bulk update in parts is: the first row that each writes is the same, and stays as it is."""
    await attached.execute(
        "BEGIN;"
        "UPDATE clips SET deleted_at = CASE tiktok_id WHEN '2' THEN now() END WHERE user_id = 1;"
        "UPDATE clips SET tiktok_id = CASE tiktok_id WHEN '1' THEN '1' ELSE tiktok_id || 'x' END;"
        "COMMIT"
    )
    await settled(attached, database)
    assert await stored(attached) == await wanted(attached)


async def test_what_two_foreign_keys_change_is_told(pool, database, refresher):
    """A deleted user empties one column of a clip directly, and another one by way of its channel."""
    await pool.execute(
        "CREATE TABLE users (id int PRIMARY KEY, tiktok_open_id text UNIQUE);"
        "CREATE TABLE channels (id int PRIMARY KEY, owner int REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE clips (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE SET NULL,"
        " channel_id int REFERENCES channels ON DELETE SET NULL, tiktok_id text UNIQUE);"
        "CREATE INDEX ON clips (user_id);"
        "INSERT INTO users SELECT n, 'u' || n FROM generate_series(1, 20) AS n;"
        "INSERT INTO refresher.accounts (open_id) SELECT tiktok_open_id FROM users;"
        "INSERT INTO channels SELECT n, n FROM generate_series(1, 20) AS n;"
        "INSERT INTO clips SELECT u * 10 + n, u, u % 20 + 1, u * 10 + n"
        " FROM generate_series(1, 20) AS u, generate_series(1, 3) AS n"
    )
    changed = {"cover": None, "expires": None, "where": "channel_id IS NOT NULL"}
    assert (await refresher(*attach(**changed)))[0] == 0
    assert len(await stored(pool)) == 60
    await pool.execute("DELETE FROM users WHERE id IN (1, 2, 5)")
    await settled(pool, database, carries=False)
    # Of the users 1, 2 and 5, and of 20 and 4, whose clips are in channels of 1 and 5.
    assert len(await stored(pool)) == 60 - 3 * 5


async def test_where_the_server_counts_nothing_each_row_tells(attached, database):
    """Then nothing says which rows are of one statement."""
    await administer(
        database, "SET track_counts = off", "UPDATE clips SET cover_url = 'w' WHERE user_id = 2"
    )
    assert await attached.fetchval("SELECT count(*) FROM refresher.changed_rows") == 3


async def test_what_two_attachments_watch_is_told_to_both(attached, refresher):
    """Two tables of videos of the same users: an update of these is news for each."""
    await attached.execute(
        "CREATE TABLE reels (user_id bigint REFERENCES users, tiktok_id text,"
        " UNIQUE (user_id, tiktok_id))"
    )
    changed = {"table": "reels", "cover": None, "expires": None, "where": None}
    assert (await refresher(*attach(**changed)))[0] == 0
    await attached.execute("UPDATE users SET tiktok_open_id = 'ann2' WHERE tiktok_open_id = 'ann'")
    rows = await attached.fetch("SELECT attachment, open_ids FROM refresher.changed_rows")
    assert {row["attachment"]: sorted(row["open_ids"]) for row in rows} == {
        "clips": ["ann", "ann2"],
        "reels": ["ann", "ann2"],
    }


async def test_an_update_in_a_trigger_is_told_beside_the_one_around_it(attached, database):
    """Whichever of the triggers comes first."""
    await attached.execute(
        "CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE clips SET tiktok_id = 'also' WHERE id = 4 AND tiktok_id <> 'also';"
        " RETURN NULL; END $$;"
        "CREATE TRIGGER also AFTER UPDATE ON clips FOR EACH ROW WHEN (OLD.id <= 2)"
        " EXECUTE FUNCTION also();"
        "UPDATE clips SET tiktok_id = 'new' || id WHERE id <= 3"
    )
    await settled(attached, database)
    assert await stored(attached) == await wanted(attached)
    await attached.execute(
        "ALTER TRIGGER also ON clips RENAME TO zzz;"
        "UPDATE clips SET tiktok_id = '8' WHERE id = 4;"
        "UPDATE clips SET tiktok_id = 'newer' || id WHERE id <= 3"
    )
    await settled(attached, database)
    assert await stored(attached) == await wanted(attached)


async def test_an_update_in_a_trigger_does_not_tell_all_rows_for_each(attached):
    """The rows of the statement around it are told once more at most, however many they are."""
    await attached.execute(
        "CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE clips SET title = 'also' WHERE id = NEW.id; RETURN NULL; END $$;"
        "CREATE TRIGGER also AFTER UPDATE OF cover_url ON clips FOR EACH ROW"
        " EXECUTE FUNCTION also();"
    )
    await add_clips(attached, 1, [f"b{n}" for n in range(500)])
    await attached.execute("DELETE FROM refresher.changed_rows")
    await attached.execute("UPDATE clips SET cover_url = 'u' || id WHERE tiktok_id LIKE 'b%'")
    told = await attached.fetchval("SELECT sum(cardinality(video_ids)) FROM refresher.changed_rows")
    assert 1000 <= told <= 3 * 1000  # each before and after


async def test_what_a_foreign_key_to_the_table_itself_changes_is_told(pool, database, refresher):
    """Though its actions are other statements in the midst of the one that is told of."""
    await pool.execute(
        "CREATE TABLE clips (open_id text, video_id text, answers text, UNIQUE (open_id, video_id),"
        " FOREIGN KEY (open_id, answers) REFERENCES clips (open_id, video_id) ON UPDATE CASCADE);"
        "INSERT INTO refresher.accounts (open_id) VALUES ('ann'), ('bob');"
        "INSERT INTO clips VALUES"
        " ('ann', '1', NULL), ('ann', '2', NULL), ('ann', '11', '1'), ('ann', '12', '2')"
    )
    options = ("--table", "clips", "--video-id", "video_id", "--account", "open_id")
    assert (await refresher("attach", *options))[0] == 0
    await pool.execute("UPDATE clips SET open_id = 'bob' WHERE answers IS NULL")
    await settled(pool, database)
    assert await stored(pool) == {("bob", video_id) for video_id in ("1", "2", "11", "12")}


async def test_a_condition_over_a_column_without_equality_is_told(pool, refresher):
    """json, say: its bytes are compared. In a child of another table the statement tells."""
    await pool.execute(
        "CREATE TABLE things (open_id text, video_id text, about json, seen int);"
        "CREATE TABLE clips (UNIQUE (open_id, video_id)) INHERITS (things);"
        "CREATE TABLE others (LIKE things, UNIQUE (open_id, video_id));"
        "INSERT INTO refresher.accounts (open_id) VALUES ('ann');"
        "INSERT INTO clips VALUES ('ann', '1', '{}', 1);"
        "INSERT INTO others VALUES ('ann', '2', '{}', 1)"
    )
    for table in ("clips", "others"):
        options = {"table": table, "video-id": "video_id", "account": "open_id"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        condition = "about ->> 'live' IS NOT NULL"
        assert (await refresher("attach", *words, "--where", condition))[0] == 0
        await pool.execute("DELETE FROM refresher.changed_rows")
        await pool.execute(f"UPDATE {table} SET seen = 2")
        assert not await pool.fetchval("SELECT count(*) FROM refresher.changed_rows")
        await pool.execute(f"UPDATE {table} SET about = '{{\"live\": true}}'")
        assert await pool.fetchval("SELECT count(*) FROM refresher.changed_rows") == 1


async def test_a_bulk_update_does_not_wait_once_a_row(attached):
    """Where the queue is locked: once for all."""
    await add_clips(attached, 1, [f"b{n}" for n in range(200)])
    async with attached.acquire() as other, attached.acquire() as application:
        await other.execute("BEGIN; LOCK TABLE refresher.changed_rows IN ACCESS EXCLUSIVE MODE")
        await application.execute("UPDATE clips SET deleted_at = now()", timeout=5)
        await other.execute("ROLLBACK")


async def test_covers_that_are_carried_are_no_news(attached, database):
    """The daemon's own writes into the table are not told back."""
    await store_covers(attached)
    done, _ = await settled(attached, database)
    assert done.carried == 6
    assert not await attached.fetchval("SELECT count(*) FROM refresher.changed_rows")


async def store_covers(pool):
    """As a write-back does."""
    await pool.execute(
        "UPDATE refresher.videos SET cover_image_url = 'https://cdn.example/' || video_id"
        " || '?x-expires=' || extract(epoch FROM date_trunc('second', now()) + interval '1 day')::int,"
        " cover_expires_at = date_trunc('second', now()) + interval '1 day', refreshed_at = now(),"
        " due_at = now() + interval '20 hours'"
    )


async def test_an_old_row_that_is_saved_again_gets_its_cover_back(attached, database):
    """What an ORM had read before is no longer the cover."""
    await store_covers(attached)
    await settled(attached, database)
    await attached.execute("UPDATE clips SET cover_url = NULL, cover_expires = NULL, title = 'x'")
    done, _ = await settled(attached, database)
    assert done.carried == 6


OWN = "cover_url = 'https://own', cover_expires = '2100-01-01'"


async def own_covers(pool):
    """How many clips have the application's own cover."""
    return await pool.fetchval(
        "SELECT count(*) FROM clips"
        " WHERE cover_url = 'https://own' AND cover_expires = '2100-01-01'::timestamptz"
    )


async def test_a_dead_cover_is_written_over_none_of_the_applications_own(attached, database):
    """One that the application has found itself stays: of an account without consent, say."""
    await store_covers(attached)
    await attached.execute(
        "UPDATE refresher.videos SET cover_expires_at = now() - interval '1 second'"
    )
    await attached.execute(f"UPDATE clips SET {OWN}")
    for attachment in await read_attachments(attached):
        await walk_step(attached, attachment, lambda *_: None)
    await settled(attached, database)
    assert await own_covers(attached) == 6


async def test_a_cover_of_the_application_keeps_its_expiry_until_a_fresh_one_comes(
    pool, database, refresher
):
    """Although its URL does not say it, so the refresher does not know it."""
    await pool.execute(APPLICATION)
    await add_user(pool, "ann", ["1", "2"])
    await pool.execute(f"UPDATE clips SET {OWN}")
    assert (await refresher(*attach()))[0] == 0
    for attachment in await read_attachments(pool):
        await walk_step(pool, attachment, lambda *_: None)
    await settled(pool, database)
    assert await own_covers(pool) == 2
    await store_covers(pool)
    await settled(pool, database)
    assert await own_covers(pool) == 0


async def test_a_row_that_the_application_holds_gets_its_cover_later(attached, database):
    """The others get theirs at once."""
    await store_covers(attached)
    async with attached.acquire() as application, application.transaction():
        await application.execute("UPDATE clips SET title = 'long' WHERE id = 1")
        done, refused = await settled(attached, database)
        assert (done.carried, done.locked, refused) == (5, 1, [])
    await attached.execute("UPDATE refresher.changed_covers SET not_before = now()")
    done, _ = await settled(attached, database)
    assert (done.carried, done.locked) == (1, 0)


async def test_a_trigger_of_the_application_that_refuses_a_cover_costs_that_row(attached, database):
    """Its own cover alone is missing; it is said, and tried again later."""
    await attached.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'not this one'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE OF cover_url ON clips FOR EACH ROW"
        " WHEN (OLD.id = 2) EXECUTE FUNCTION refuse()"
    )
    await store_covers(attached)
    carried, said = 0, []
    for _ in range(3):  # the rest of a batch that fails is told again in parts
        done, refused = await settled(attached, database)
        carried, said = carried + done.carried, said + refused
    assert carried == 5
    assert [(told.open_ids, told.video_ids, str(why)) for told, why in said] == [
        (["ann"], ["2"], "not this one")
    ]


@pytest.mark.parametrize("sqlstate", ["P0001", "42501", "42P01"])
async def test_a_trigger_that_raises_as_if_something_were_missing_costs_that_row(
    attached, database, sqlstate
):
    """Whatever the code: without rows all is well, so it is no matter of the attachment."""
    await attached.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE 'not this one' USING ERRCODE = '{sqlstate}'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE OF cover_url ON clips FOR EACH ROW"
        " WHEN (OLD.id = 2) EXECUTE FUNCTION refuse()"
    )
    await store_covers(attached)
    carried = 0
    for _ in range(3):  # the rest of a batch that fails is told again in parts
        done, _ = await settled(attached, database)
        carried += done.carried
    assert carried == 5


async def test_triggers_of_the_application_find_their_tables(attached, database):
    """By names without a schema, as in a session of the daemon's role: of covers and new videos."""
    await attached.execute(
        "CREATE TABLE history (what text);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO history VALUES (TG_OP); RETURN NULL; END $$;"
        "CREATE TRIGGER note AFTER UPDATE ON clips FOR EACH ROW EXECUTE FUNCTION note();"
        "CREATE TRIGGER note AFTER INSERT OR DELETE ON refresher.videos"
        " FOR EACH ROW EXECUTE FUNCTION note()"
    )
    await store_covers(attached)
    done, refused = await settled(attached, database)
    assert (done.carried, refused) == (6, [])
    await attached.execute("DELETE FROM clips WHERE id = 1")
    await add_clips(attached, 1, ["8"])
    await settled(attached, database)
    rows = await attached.fetch("SELECT what, count(*) FROM history GROUP BY what ORDER BY what")
    assert [tuple(row) for row in rows] == [("DELETE", 1), ("INSERT", 1), ("UPDATE", 6)]


HINDRANCES = {
    "the queue is locked": "BEGIN; LOCK TABLE refresher.changed_rows IN ACCESS EXCLUSIVE MODE",
    "the queue is gone": "DROP TABLE refresher.changed_rows",
    "a right is missing": "ALTER FUNCTION refresher.attached_clips_told() OWNER TO {role}",
    "no function of its kind": "ALTER TABLE refresher.changed_rows RENAME video_ids TO ids",
}


@pytest.mark.parametrize("hindrance", HINDRANCES)
async def test_an_application_writes_although_nothing_can_be_told(role, attached, hindrance):
    """Its statement succeeds, and soon; the walk through all accounts adds the video."""
    async with attached.acquire() as other, attached.acquire() as application:
        await other.execute(HINDRANCES[hindrance].format(role=role))
        await application.execute(
            "INSERT INTO clips (user_id, tiktok_id) VALUES (1, 'new')", timeout=5
        )
        await other.execute("ROLLBACK")
    if "gone" not in hindrance and "kind" not in hindrance:
        (attachment,) = await read_attachments(attached)
        done, _ = await walk_step(attached, attachment, lambda *_: None)
        assert done.added == 1


@pytest.fixture
async def role(server):
    name = f"other_{secrets.token_hex(4)}"
    await administer(server, f"CREATE ROLE {name} LOGIN")
    yield name
    await administer(server, f"DROP ROLE {name}")


async def test_two_transactions_in_another_order_do_not_wait_for_each_other(attached):
    """Videos of two accounts, each transaction in the other's order: no lock, no deadlock."""
    async with attached.acquire() as one, attached.acquire() as other:
        for connection in (one, other):
            await connection.execute("BEGIN; SET LOCAL lock_timeout = '1s'")
        for connection, user, video in (
            (one, 1, "a"),
            (other, 2, "b"),
            (one, 2, "c"),
            (other, 1, "d"),
        ):
            await connection.execute(
                "INSERT INTO clips (user_id, tiktok_id) VALUES ($1, $2)", user, video
            )
        for connection in (one, other):
            await connection.execute("COMMIT")


async def test_a_long_transaction_of_the_application_holds_up_no_account(attached, database):
    """Its videos come when it commits; meanwhile the account is claimed, and other videos come."""
    async with attached.acquire() as long, long.transaction():
        await long.execute("INSERT INTO clips (user_id, tiktok_id) VALUES (1, 'long')")
        await add_clips(attached, 1, ["short"])
        done, _ = await settled(attached, database)
        assert done.added == 1
        locked = await attached.fetch("SELECT open_id FROM refresher.accounts FOR UPDATE NOWAIT")
        assert len(locked) == 2
    done, _ = await settled(attached, database)
    assert done.added == 1


async def test_a_video_of_an_attached_table_is_asked_for_at_once(pool, serve, start, refresher):
    """The table's trigger notifies the daemon, which has a poll of an hour."""
    world = await serve(cover_ttl=7200)
    await pool.execute(APPLICATION)
    world.emulator.add_account("ann", "act.ann")
    world.emulator.add_video("ann", "7")
    await add_user(pool, "ann", known=False)
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ann', 'act.ann')"
    )
    assert (await refresher(*attach()))[0] == 0
    daemon = await start(world, poll_seconds=3600)
    await daemon.until_event("notifications.received")
    await add_clips(pool, 1, ["7"])
    await until_covered(pool)
    applied = await daemon.until_event("attachment.applied")
    assert (applied["attachment"], applied["added"]) == ("clips", 1)
    assert await daemon.stopped() == 0


async def test_a_truncate_of_the_users_alone_is_heard(attached):
    """Where nothing refers to the table."""
    await attached.execute("ALTER TABLE clips DROP CONSTRAINT clips_user_id_fkey; TRUNCATE users")
    for attachment in await read_attachments(attached):
        await apply_told(attached, attachment, lambda *said: pytest.fail(str(said)))
    (attachment,) = await read_attachments(attached)
    assert attachment.walked_at is None


async def test_what_another_is_at_is_not_passed_over(attached):
    """A step of the walk that gets no turn comes again."""
    await attached.execute("DELETE FROM refresher.videos")
    await attached.execute("UPDATE refresher.attachments SET walked_at = NULL")
    (attachment,) = await read_attachments(attached)
    async with attached.acquire() as other, other.transaction():
        await other.execute("SELECT FROM refresher.attachments FOR UPDATE")
        done, more = await walk_step(attached, attachment, lambda *_: None)
        assert (done.added, more) == (0, False)
    done, more = await walk_step(attached, attachment, lambda *_: None)
    assert (done.added, more) == (6, True)


async def test_a_truncate_among_other_news_is_heard(attached, database):
    """All accounts are looked at again, whatever else was told."""
    await attached.execute("TRUNCATE clips; UPDATE users SET tiktok_open_id = 'neu' WHERE id = 1")
    await settled(attached, database)
    (attachment,) = await read_attachments(attached)
    assert attachment.walked_at is None


async def test_a_walk_that_was_begun_anew_is_not_moved_on_by_a_step_of_the_old_one(
    attached, database
):
    """A TRUNCATE is told while a step is under way: the new walk begins at the first account."""
    await attached.execute("UPDATE refresher.attachments SET walked_to = ''")
    await attached.execute(
        "CREATE FUNCTION walk_again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE refresher.attachments SET walk = walk + 1, walked_to = '', walked_at = NULL;"
        " RETURN NULL; END $$;"
        "CREATE TRIGGER walk_again AFTER INSERT ON refresher.changed_rows"
        " FOR EACH STATEMENT EXECUTE FUNCTION walk_again()"
    )
    await attached.execute("DELETE FROM refresher.videos")
    (attachment,) = await read_attachments(attached)
    done, _ = await walk_step(attached, attachment, lambda *said: pytest.fail(str(said)))
    assert done.added == 6
    row = await attached.fetchrow("SELECT walked_to, walked_at FROM refresher.attachments")
    assert tuple(row) == ("", None)


async def test_much_that_was_told_is_applied_in_short_transactions(attached, database):
    """Whole accounts are only looked at; no transaction adds more than some thousand videos."""
    await attached.execute(
        "INSERT INTO users (tiktok_open_id) SELECT 'user-' || n FROM generate_series(1, 120) AS n;"
        "INSERT INTO clips (user_id, tiktok_id) SELECT users.id, 'c' || n"
        " FROM users, generate_series(1, 60) AS n WHERE tiktok_open_id LIKE 'user-%'"
    )
    await settled(attached, database)
    await attached.execute(
        "INSERT INTO refresher.accounts (open_id) SELECT 'user-' || n FROM generate_series(1, 120) AS n"
    )
    told = await attached.fetch("SELECT cardinality(open_ids) AS n FROM refresher.changed_rows")
    assert sum(row["n"] for row in told) == 120
    assert max(row["n"] for row in told) <= 50
    (attachment,) = await read_attachments(attached)
    steps, more = [], True
    while more:
        done, more = await apply_told(attached, attachment, lambda *said: pytest.fail(str(said)))
        steps.append(done.added)
    assert sum(steps) == 120 * 60
    assert max(steps) <= 3_000
    assert await stored(attached) == await wanted(attached)


async def test_the_walk_waits_for_what_it_has_told(attached, database):
    """Else it would find the same again, and the queue would grow."""
    await attached.execute("DELETE FROM refresher.videos")
    await attached.execute("UPDATE refresher.attachments SET walked_to = ''")
    (attachment,) = await read_attachments(attached)
    found = []
    for change in (
        "SELECT",
        "UPDATE refresher.changed_rows SET told_at = now() - interval '6 seconds'",
        "UPDATE refresher.changed_rows SET not_before = now() + interval '1 minute'",
    ):
        await attached.execute(change)
        await attached.execute("UPDATE refresher.attachments SET walked_to = ''")
        done, _ = await walk_step(attached, attachment, lambda *said: pytest.fail(str(said)))
        found.append(done.added)
    assert found == [6, 0, 6]


async def test_a_large_table_does_not_keep_the_others_waiting(attached, database, refresher):
    """Each attached table has its turn; what one cannot do now stops no other one."""
    await attached.execute(
        "CREATE TABLE pictures (open_id text, video_id text, UNIQUE (open_id, video_id))"
    )
    words = ("--table", "pictures", "--account", "open_id", "--video-id", "video_id")
    assert (await refresher("attach", *words))[0] == 0
    attachments = Attachments(attached)
    await attached.execute(
        "INSERT INTO clips (user_id, tiktok_id) SELECT 1, 'c' || n FROM generate_series(1, 9000) AS n;"
        "INSERT INTO pictures VALUES ('ann', 'p1');"
        "CREATE TABLE applied (n bigint GENERATED ALWAYS AS IDENTITY, attached_by smallint);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.applied (attached_by) SELECT DISTINCT attached_by FROM new_rows;"
        " RETURN NULL; END $$;"
        "CREATE TRIGGER note AFTER INSERT ON refresher.videos REFERENCING NEW TABLE AS new_rows"
        " FOR EACH STATEMENT EXECUTE FUNCTION note()"
    )
    await attachments.apply()
    order = [row[0] for row in await attached.fetch("SELECT attached_by FROM applied ORDER BY n")]
    rows = await attached.fetch("SELECT attachment FROM refresher.attachments ORDER BY name")
    clips, pictures = (row[0] for row in rows)
    assert len(order) > 3
    assert order[:2] == [clips, pictures]


async def test_where_nothing_is_told_nothing_is_written(attached):
    """Not even a lock: that is a transaction ID a second and replica, for as long as it is attached."""
    attachments = Attachments(attached)
    await attachments.apply()
    locked_by = "SELECT xmax::text FROM refresher.attachments"
    before = await attached.fetchval(locked_by)
    await attachments.apply()
    await attachments.carry()
    assert await attached.fetchval(locked_by) == before
    await add_clips(attached, 1, ["8"])
    await attachments.apply()
    assert await attached.fetchval(locked_by) != before


async def test_a_table_that_its_application_holds_locked_rests(attached, database, refresher):
    """As a migration does: in the next turns the other table does not wait for its lock."""
    await attached.execute(
        "CREATE TABLE pictures (open_id text, video_id text, UNIQUE (open_id, video_id))"
    )
    words = ("--table", "pictures", "--account", "open_id", "--video-id", "video_id")
    assert (await refresher("attach", *words))[0] == 0
    now = 0.0
    impatient = {"lock_timeout": "200ms"}
    async with asyncpg.create_pool(database, min_size=0, server_settings=impatient) as pool:
        attachments = Attachments(pool, clock=lambda: now)
        await add_clips(attached, 1, ["c1"])
        async with attached.acquire() as other:
            await other.execute("BEGIN; LOCK TABLE clips IN ACCESS EXCLUSIVE MODE")
            with capture_logs() as logs:
                await attachments.apply()
                await attached.execute("INSERT INTO pictures VALUES ('ann', 'p1')")
                await attachments.apply()
            await other.execute("ROLLBACK")
        assert [(log["event"], log["attachment"]) for log in logs] == [
            ("attachment.failed", "clips"),
            ("attachment.applied", "pictures"),
        ]
        assert ("ann", "c1") not in await stored(attached)
        now = REST_SECONDS
        await attachments.apply()
        assert ("ann", "c1") in await stored(attached)


async def test_what_an_unfit_table_tells_is_left_to_the_walk_after_an_hour(attached, refresher):
    """Its queue does not grow for ever, and the other table goes on."""
    await attached.execute(
        "CREATE TABLE pictures (open_id text, video_id text, UNIQUE (open_id, video_id))"
    )
    words = ("--table", "pictures", "--account", "open_id", "--video-id", "video_id")
    assert (await refresher("attach", *words))[0] == 0
    attachments = Attachments(attached)
    await add_clips(attached, 1, ["old"])
    await attached.execute("UPDATE refresher.changed_rows SET told_at = now() - interval '2 hours'")
    await add_clips(attached, 1, ["new"])
    await attached.execute(
        "ALTER TABLE clips RENAME tiktok_id TO other; INSERT INTO pictures VALUES ('ann', 'p1')"
    )
    await attachments.apply()
    left = await attached.fetch("SELECT attachment, video_ids FROM refresher.changed_rows")
    assert [tuple(row) for row in left] == [("clips", ["new"])]
    assert ("ann", "p1") in await stored(attached)
    await attached.execute("ALTER TABLE clips RENAME other TO tiktok_id")
    await attachments.apply()  # it rests
    assert ("ann", "new") not in await stored(attached)


async def test_much_that_was_told_keeps_no_table_locked_while_it_is_detached(attached, refresher):
    """It is deleted when the triggers are gone: here it waits, and the application reads and writes."""
    await add_clips(attached, 1, ["7"])

    async def is_without_triggers():
        return not await attached.fetchval(
            "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'clips'::regclass AND tgname LIKE 'refresher%'"
        )

    async with attached.acquire() as other:
        await other.execute("BEGIN; SELECT FROM refresher.changed_rows FOR UPDATE")
        detaching = asyncio.create_task(refresher("detach", "--table", "clips"))
        await eventually(is_without_triggers, "the table without triggers")
        await attached.execute("SET lock_timeout = '2s'; DELETE FROM clips WHERE tiktok_id = '7'")
        await other.execute("ROLLBACK")
    assert (await detaching)[0] == 0
    assert not await attached.fetchval("SELECT count(*) FROM refresher.changed_rows")


async def test_videos_that_were_kept_go_with_the_table_again(attached, database, refresher):
    """`detach --keep-videos`, and attached anew: the application's next deletion counts."""
    assert (await refresher("detach", "--table", "clips", "--keep-videos"))[0] == 0
    assert len(await stored(attached)) == 6
    assert (await refresher(*attach()))[0] == 0
    await attached.execute("DELETE FROM clips WHERE user_id = 1")
    await settled(attached, database)
    assert await stored(attached) == await wanted(attached)


async def test_columns_may_have_the_names_of_our_variables(pool, refresher):
    """In a condition the table's column is meant."""
    await pool.execute(
        "CREATE TABLE clips (open_id text, video_id text, added boolean, removed boolean,"
        " told_keys text, this int, cover text, UNIQUE (open_id, video_id));"
        "INSERT INTO refresher.accounts (open_id) VALUES ('ann')"
    )
    condition = "added AND NOT removed AND told_keys = 'k' AND this = 1"
    options = {"table": "clips", "video-id": "video_id", "account": "open_id", "where": condition}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    code, _, err = await refresher("attach", *words, "--cover", "cover")
    assert (code, unnoted(err)) == (0, "")
    await pool.execute(
        "INSERT INTO clips VALUES ('ann', '1', true, false, 'k', 1), ('ann', '2', true, true, 'k', 1)"
    )
    (attachment,) = await read_attachments(pool)
    done, _ = await apply_told(pool, attachment, lambda *said: pytest.fail(str(said)))
    assert done.added == 1
    await store_covers(pool)
    done, _ = await carry_told(pool, attachment, lambda *said: pytest.fail(str(said)))
    assert done.carried == 1
