"""What cannot be attached: one clear line, exit 2, and nothing is left behind."""

import asyncio
import secrets

import pytest

from tests.conftest import administer, eventually, waits_for_a_lock
from tests.test_attach import APPLICATION, add_user, attach, unnoted

OTHER = """
CREATE VIEW shown AS SELECT * FROM clips;
CREATE TABLE "Clip" (
    "openId" varchar(64), "videoId" bigint, "coverUrl" varchar(255), "expiresAt" timestamp(3),
    made text GENERATED ALWAYS AS ('made') STORED, UNIQUE ("openId", "videoId")
);
CREATE TABLE bare (open_id text, video_id text, cover text);
CREATE TABLE odd (open_id uuid, video_id integer, expires date, UNIQUE (open_id, video_id));
CREATE TABLE "of
mine" ();
ALTER TABLE clips ADD "$refresher$" text;
CREATE DOMAIN kept_url AS text CONSTRAINT own_host CHECK (VALUE LIKE 'https://cdn.app.test/%');
CREATE DOMAIN short_url AS varchar(200);
CREATE FUNCTION is_kept(text) RETURNS boolean LANGUAGE sql AS $$ SELECT $1 LIKE '%/kept/%' $$;
CREATE TABLE strict (
    open_id text, video_id text, kept kept_url, short short_url, cover text, expires timestamptz,
    checked text CONSTRAINT checked_is_kept CHECK (is_kept(checked)),
    CONSTRAINT never_both CHECK (cover IS NULL OR expires IS NULL),
    UNIQUE (open_id, video_id)
);
CREATE TABLE texts (user_id text, tiktok_id text, UNIQUE (user_id, tiktok_id));
"""
DIRECT = {"account_table": None, "open_id": None, "where": None, "cover": None, "expires": None}
OF_STRICT = DIRECT | {"table": "strict", "video_id": "video_id", "account": "open_id"}
OF_CLIP = DIRECT | {"table": "public.Clip", "video_id": "videoId", "account": "openId"}

REFUSED = {
    "no such table": (
        {"table": "public.clipz"},
        "--table: expected a table, not 'public.clipz': there is none of this name",
    ),
    "a view": (
        {"table": "shown"},
        "--table: expected a table, not 'shown', which is something else, such as a view",
    ),
    "no such column": (
        {"video_id": "tiktok"},
        (
            "--video-id: expected a column of public.clips, not 'tiktok'; it has $refresher$, cover_expires,"
            " cover_url, deleted_at, id, tiktok_id, title, user_id"
        ),
    ),
    "a video's ID of a wrong type": (
        DIRECT | {"table": "odd", "video_id": "video_id", "account": "open_id"},
        (
            "--video-id: expected a type of text, varchar, bpchar, int8, numeric, not"
            " public.odd.video_id: integer"
        ),
    ),
    "an expiry of a wrong type": (
        {"expires": "title"},
        "--expires: expected a type of timestamptz, timestamp, not public.clips.title: text",
    ),
    "a join of two types": (
        {"table": "texts", "where": None, "cover": None, "expires": None},
        "--account: expected the type of public.users.id (bigint), not public.texts.user_id: text",
    ),
    "a column that is too short": (
        OF_CLIP | {"cover": "coverUrl"},
        (
            "--cover: public.Clip.coverUrl is character varying(255), and covers are longer: ALTER TABLE"
            ' public."Clip" ALTER "coverUrl" TYPE text'
        ),
    ),
    "a generated column": (
        OF_CLIP | {"cover": "made"},
        "--cover: public.Clip.made is generated: nothing can be written to it",
    ),
    "a domain that takes no cover": (
        OF_STRICT | {"cover": "kept"},
        (
            "--cover: public.strict.kept does not take a cover such as TikTok's: value for domain"
            ' public.kept_url violates check constraint "own_host"'
        ),
    ),
    "a domain that cuts it off": (
        OF_STRICT | {"cover": "short"},
        (
            "--cover: public.strict.short does not take a cover such as TikTok's: type"
            " public.short_url keeps a part of it only"
        ),
    ),
    "a constraint that refuses it": (
        OF_STRICT | {"cover": "checked"},
        (
            "--cover: public.strict.checked does not take a cover such as TikTok's: it violates"
            " check constraint checked_is_kept"
        ),
    ),
    "a constraint over cover and expiry": (
        OF_STRICT | {"cover": "cover", "expires": "expires"},
        (
            "--cover: public.strict.cover does not take a cover such as TikTok's: it violates"
            " check constraint never_both"
        ),
    ),
    "not unique": (
        DIRECT | {"table": "bare", "video_id": "video_id", "account": "open_id"},
        (
            "public.bare: expected a unique index over open_id, video_id, not none: CREATE UNIQUE INDEX"
            " CONCURRENTLY ON public.bare (open_id, video_id)"
        ),
    ),
    "a condition that is none": (
        {"where": "platform = 'tiktok'"},
        (
            "--where: expected a condition over the columns of public.clips, not \"platform = 'tiktok'\":"
            ' column "platform" does not exist'
        ),
    ),
    "half a join": (
        {"open_id": None},
        "expected --account-table and --open-id together, or neither",
    ),
    "an expiry without a cover": ({"cover": None}, "--expires: expected --cover, too"),
    "no columns": (
        {"video_id": None},
        "expected --video-id and --account; refresher attach --help says what they are",
    ),
    "one column for two things": (
        {"cover": "tiktok_id", "expires": None},
        "--cover: expected another column than --video-id, not 'tiktok_id' again",
    ),
    "a name that no table can have": (
        {"table": "é" * 40},
        (
            f"--table: expected a table, not '{'é' * 40}': there is none of this name in the"
            " search_path: name its schema, too"
        ),
    ),
    "a table of the refresher": (
        DIRECT | {"table": "refresher.videos", "video_id": "video_id", "account": "open_id"},
        "--table: expected a table of an application, not 'refresher.videos': that is ours",
    ),
    "a name that ends a comment": (
        {"table": "public.of\nmine"},
        (
            "--table: expected a name of printable characters, without $refresher$, not"
            r" 'of\nmine'"
        ),
    ),
    "a name that ends a function": (
        {"cover": "$refresher$"},
        (
            "--cover: expected a name of printable characters, without $refresher$, not"
            " '$refresher$'"
        ),
    ),
    "videos and tokens": (
        {"access_token": "title"},
        "expected options of videos or of tokens: a table for each, a call for each",
    ),
}


async def left_behind(pool):
    """Functions, triggers, queues and attachments."""
    return await pool.fetchval(
        "SELECT (SELECT count(*) FROM pg_proc WHERE proname LIKE 'attached\\_%')"
        " + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'refresher\\_%')"
        " + (SELECT count(*) FROM refresher.attachments)"
        " + (SELECT count(*) FROM refresher.videos)"
    )


@pytest.fixture
async def application(pool):
    await pool.execute(APPLICATION + OTHER)
    await add_user(pool, "ann", ["1", "2"])
    return pool


@pytest.mark.parametrize("case", REFUSED)
async def test_a_mapping_that_does_not_fit_is_refused(application, refresher, case):
    """One line that names the value, what was expected and where."""
    changed, line = REFUSED[case]
    assert await refresher(*attach(**changed)) == (2, "", f"refresher: {line}\n")
    assert await left_behind(application) == 0


async def test_constraints_that_take_covers_are_no_obstacle(application, refresher):
    """One that only rows can tell of, too, and one that is not enforced, where there is such."""
    await application.execute(
        "ALTER TABLE clips ADD CHECK (cover_url ~ '^https://[a-z0-9.-]+[.]tiktokcdn[.]com/'),"
        " ADD CHECK (cover_url IS NULL OR title IS NOT NULL)"
    )
    if await application.fetchval("SELECT current_setting('server_version_num')::int") >= 180000:
        await application.execute("ALTER TABLE clips ADD CHECK (cover_url IS NULL) NOT ENFORCED")
    code, _, err = await refresher(*attach())
    assert (code, unnoted(err)) == (0, "")


async def test_a_user_without_an_open_id_is_named(application, refresher):
    """With --skip-without-open-id the others are attached; they follow when they get one."""
    user = await add_user(application, None, ["7", "8"], known=False)
    assert await refresher(*attach()) == (
        2,
        "",
        (
            "refresher: public.clips: expected an open_id for each video, but 2 have none, for example of"
            f" account '{user}'; --skip-without-open-id leaves them alone until they get one\n"
        ),
    )
    assert await left_behind(application) == 0
    code, out, err = await refresher(*attach(), "--skip-without-open-id")
    assert (code, unnoted(err)) == (0, "")
    assert out.startswith("attached public.clips: 2 videos added; 2 without an open_id left out;")


async def test_a_video_that_two_users_of_one_account_have_is_named(application, refresher):
    """The mapping must lead from a video to one row."""
    await application.execute("ALTER TABLE users DROP CONSTRAINT users_tiktok_open_id_key")
    await application.execute("CREATE INDEX ON users (tiktok_open_id)")
    await add_user(application, "ann", ["2"], known=False)
    assert await refresher(*attach()) == (
        2,
        "",
        (
            "refresher: public.clips: expected each video once, but 1 stand there more than once, for"
            " example '2'\n"
        ),
    )
    assert await left_behind(application) == 0


async def test_a_trigger_of_the_same_name_is_not_replaced(application, refresher):
    """It is named, with what it calls."""
    await application.execute(
        "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER refresher_clips_updated AFTER UPDATE ON clips EXECUTE FUNCTION mine()"
    )
    assert await refresher(*attach()) == (
        2,
        "",
        (
            "refresher: public.clips: expected no trigger refresher_clips_updated, but there is one, which"
            " calls mine: rename it\n"
        ),
    )


async def test_a_second_attach_and_a_second_detach_are_refused(application, refresher):
    """Each says how things are, and changes nothing."""
    assert (await refresher(*attach()))[0] == 0
    code, out, err = await refresher(*attach(cover=None, expires=None))
    assert (code, out) == (2, "")
    assert err.startswith("refresher: public.clips is attached already: refresher attach --table")
    assert err.endswith("; to change that, first: refresher detach --table public.clips\n")
    assert (await refresher("detach", "--table", "public.clips"))[0] == 0
    assert await refresher("detach", "--table", "public.clips") == (
        2,
        "",
        "refresher: --table: expected an attached table, not 'public.clips': it is not attached\n",
    )
    assert await left_behind(application) == 0


async def test_a_table_that_somebody_locks_is_not_waited_for(application, refresher):
    """It says so after short tries; nothing is half done."""
    async with application.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE clips IN ROW EXCLUSIVE MODE")
        code, out, err = await refresher(*attach())
    assert (code, out) == (2, "")
    assert err == (
        "refresher: somebody holds a lock on one of public.clips, public.users, refresher.videos,"
        " refresher.attachments: try again, or end that transaction\n"
    )
    assert await left_behind(application) == 0


async def test_an_application_that_locks_the_other_way_round_is_not_the_victim(
    application, refresher
):
    """attach waits for the users, and the application for the clips: attach gives way, unnoticed."""
    async with application.acquire() as other:
        await other.execute("BEGIN; UPDATE users SET seen_at = now()")
        attaching = asyncio.create_task(refresher(*attach()))
        await eventually(lambda: waits_for_a_lock(application), "attach waiting for the users")
        await other.execute("INSERT INTO clips (user_id, tiktok_id) VALUES (1, '9'); COMMIT")
    assert (await attaching)[0] == 0
    assert len(await application.fetch("SELECT FROM refresher.videos")) == 3


async def test_what_fails_after_the_triggers_are_made_leaves_nothing_behind(application, refresher):
    """The first walk: a trigger on refresher.videos that always fails, say."""
    await application.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO nowhere DEFAULT VALUES; RETURN NULL; END';"
        "CREATE TRIGGER fail AFTER INSERT ON refresher.videos EXECUTE FUNCTION fail()"
    )
    code, out, err = await refresher(*attach())
    assert (code, out) == (2, "")
    assert err == (
        'refresher: public.clips: relation "nowhere" does not exist; it is not attached\n'
    )
    assert await left_behind(application) == 0


async def test_a_temporary_table_of_another_session_is_refused(application, refresher):
    """Nobody else can read it."""
    async with application.acquire() as other:
        await other.execute("CREATE TEMP TABLE short (open_id text, video_id text)")
        schema = await other.fetchval("SELECT pg_my_temp_schema()::regnamespace::text")
        of_short = DIRECT | {"video_id": "video_id", "account": "open_id"}
        assert await refresher(*attach(table=f"{schema}.short", **of_short)) == (
            2,
            "",
            (
                f"refresher: --table: expected a table that lasts, not '{schema}.short', which is"
                " temporary\n"
            ),
        )
        await other.execute("DROP TABLE short")


async def test_a_column_that_is_generated_when_it_is_read_is_refused(application, refresher):
    """A trigger's rows hold NULL there, so nothing would be told. Its name as a text is none."""
    if await application.fetchval("SELECT current_setting('server_version_num')::int") < 180000:
        pytest.skip("all generated columns are stored")
    await application.execute(
        "ALTER TABLE clips ADD live boolean GENERATED ALWAYS AS (deleted_at IS NULL) VIRTUAL,"
        " ADD shown text GENERATED ALWAYS AS (tiktok_id) VIRTUAL"
    )
    why = "is generated when it is read, so no trigger sees its value: make it GENERATED … STORED"
    assert await refresher(*attach(where="live")) == (
        2,
        "",
        f"refresher: --where: public.clips.live {why}; or write its expression here\n",
    )
    assert await refresher(*attach(video_id="shown")) == (
        2,
        "",
        f"refresher: --video-id: public.clips.shown {why}\n",
    )
    assert (await refresher(*attach(where="title IS DISTINCT FROM 'live'")))[0] == 0


async def test_what_the_role_may_not_do_is_said_in_one_line(pool, server, database, refresher):
    """Which right it lacks, or whose role it takes; not the server's line about a schema."""
    role = f"other_{secrets.token_hex(4)}"
    await administer(server, f"CREATE ROLE {role} LOGIN")
    url = database.replace("postgres:", f"{role}:").replace("postgres@", f"{role}@")
    try:
        await pool.execute(
            "CREATE SCHEMA studio;"
            "CREATE TABLE studio.clips (open_id text, video_id text, UNIQUE (open_id, video_id));"
            f"GRANT USAGE ON SCHEMA refresher TO {role};"
            f"GRANT ALL ON ALL TABLES IN SCHEMA refresher TO {role}"
        )
        words = ("--table", "studio.clips", "--account", "open_id", "--video-id", "video_id")
        attach = ("attach", *words, "--where", "video_id <> ''")
        said = [await refresher(*attach, url=url)]
        await pool.execute(
            f"GRANT USAGE ON SCHEMA studio TO {role}; GRANT SELECT, TRIGGER ON studio.clips TO {role}"
        )
        said.append(await refresher(*attach, url=url))
        assert (await refresher(*attach))[0] == 0
        await pool.execute(f"GRANT CREATE ON SCHEMA refresher TO {role}")
        said.append(await refresher("detach", "--table", "studio.clips", url=url))
        assert said == [
            (
                2,
                "",
                (
                    "refresher: --table: the role may not read studio.clips: it needs USAGE on schema"
                    " studio\n"
                ),
            ),
            (
                2,
                "",
                (
                    "refresher: the role may not make functions in schema refresher: it needs CREATE on"
                    " it\n"
                ),
            ),
            (
                2,
                "",
                (
                    "refresher: must be owner of relation clips: run it as the owner of studio.clips;"
                    " if you do, that role lacks a right in our schema\n"
                ),
            ),
        ]
    finally:
        await administer(database, f"DROP OWNED BY {role}")
        await administer(server, f"DROP ROLE {role}")
