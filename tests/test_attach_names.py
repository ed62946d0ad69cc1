"""Names of attachments: no two tables make the same function or trigger, and renamed tables are known."""

import re
import secrets
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import administer
from tests.test_attach import APPLICATION, add_user, attach, settled, store_covers, stored, unnoted

ALIKE = """
CREATE SCHEMA shop;
CREATE TABLE shop.videos (open_id text, video_id text, UNIQUE (open_id, video_id));
CREATE TABLE shop_videos (LIKE shop.videos INCLUDING ALL);
CREATE TABLE clips_account (LIKE shop.videos INCLUDING ALL);
"""
DIRECT = {
    "account_table": None,
    "open_id": None,
    "where": None,
    "cover": None,
    "expires": None,
    "video_id": "video_id",
    "account": "open_id",
}


@pytest.fixture
async def application(pool):
    await pool.execute(APPLICATION)
    await add_user(pool, "ann", ["1", "2"])
    return pool


SPELLED = """
CREATE SCHEMA "my.shop";
CREATE TABLE "my.shop"."Clips ""of"" all" (open_id text, video_id text, UNIQUE (open_id, video_id));
CREATE TABLE "Clip" (LIKE "my.shop"."Clips ""of"" all" INCLUDING ALL);
CREATE TABLE "a.b" (LIKE "Clip" INCLUDING ALL);
"""


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ('"my.shop"."Clips ""of"" all"', '"my.shop"."Clips ""of"" all"'),
        ('Public."Clip"', 'public."Clip"'),
        ("Clip", 'public."Clip"'),
        ("public.Clip", 'public."Clip"'),
        ("PUBLIC.CLIPS", "public.clips"),
        ('"a.b"', 'public."a.b"'),
        ("public.a.b", 'public."a.b"'),
    ],
)
async def test_a_name_is_taken_as_written_or_as_sql_reads_it(application, refresher, name, table):
    """Attached by it, asked for and detached by it."""
    await application.execute(SPELLED)
    options = {} if table == "public.clips" else DIRECT
    code, _, err = await refresher(*attach(table=name, **options))
    assert (code, unnoted(err)) == (0, "")
    assert await application.fetchval("SELECT tables[1] FROM refresher.attachments") == table
    assert (await refresher("attach", "--check", "--table", name))[0] == 0
    assert (await refresher("detach", "--table", name))[0] == 0


async def test_tables_of_like_names_do_not_share_a_trigger(application, database, refresher):
    """`shop.videos` and `shop_videos`; `clips` with a join and `clips_account`; a made name."""
    await application.execute(ALIKE)
    tables = ["shop.videos", "shop_videos", "clips_account"]
    assert (await refresher(*attach()))[0] == 0
    for table in tables:
        code, _, err = await refresher(*attach(table=table, **DIRECT))
        assert (code, unnoted(err)) == (0, "")
    names = await application.fetch("SELECT name FROM refresher.attachments")
    (made,) = (
        {row["name"] for row in names}
        - {"clips", "shop_videos"}
        - {row["name"] for row in names if "shop_videos_" in row["name"]}
    )
    await application.execute(f"CREATE TABLE {made} (LIKE shop.videos INCLUDING ALL)")
    assert (await refresher(*attach(table=made, **DIRECT)))[0] == 0
    for place, table in enumerate((*tables, made), 10):
        await application.execute(f"INSERT INTO {table} VALUES ('ann', '{place}')")
    assert (await settled(application, database))[0].added == 4
    assert (await refresher("detach", "--table", "clips_account"))[0] == 0
    await application.execute("UPDATE users SET tiktok_open_id = NULL")
    assert (await settled(application, database))[0].removed == 2


async def test_a_renamed_table_is_known_by_its_triggers(application, refresher):
    """The check says what it is called now; no other attachment is made over it; detach undoes it."""
    assert (await refresher(*attach()))[0] == 0
    _, file, _ = await refresher(*attach(), "--print-sql")
    await application.execute(
        "ALTER TABLE clips RENAME TO films; CREATE TABLE clips (LIKE films INCLUDING ALL)"
    )
    said = "public.clips is called public.films now: refresher detach --keep-videos --table public.clips"
    for name in ("public.clips", "public.films"):
        code, out, _ = await refresher("attach", "--check", "--table", name)
        assert (code, out) == (1, f"✗ {said}, then attach it anew\n")
        assert await refresher(*attach(table=name), "--print-sql") == (
            2,
            "",
            (
                f"refresher: {name}: expected a table that is not attached, but the attachment of"
                " public.clips has its name or its triggers: refresher detach --table public.clips\n"
            ),
        )
    with pytest.raises(asyncpg.RaiseError, match=r"the attachment of .* has the name"):
        await application.execute(file)
    code, _, err = await refresher("detach", "--table", "public.films", "--keep-videos")
    assert (code, err) == (0, "")
    assert not await application.fetchval(
        "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'refresher\\_%'"
    )
    assert (await refresher(*attach(table="public.films")))[0] == 0
    assert await stored(application) == {("ann", "1"), ("ann", "2")}


async def test_a_renamed_account_table_is_said(application, refresher):
    assert (await refresher(*attach()))[0] == 0
    await application.execute("ALTER TABLE users RENAME TO people")
    code, out, _ = await refresher("attach", "--check", "--table", "clips")
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith("✗ public.users is called public.people now: ")
    assert (await refresher("detach", "--table", "clips"))[0] == 0


async def test_a_file_is_refused_where_its_name_is_taken(application, refresher):
    """Before anything is made; run again for its own table it does no harm."""
    await application.execute(
        "CREATE SCHEMA other; CREATE TABLE other.clips (LIKE clips INCLUDING ALL)"
    )
    _, file, _ = await refresher(*attach(), "--print-sql")
    for _ in range(2):
        await application.execute(file)
    await application.execute("UPDATE refresher.attachments SET tables[1] = 'other.clips'")
    with pytest.raises(asyncpg.RaiseError, match=r"the attachment of .* has the name"):
        await application.execute(file)


# --- Whose rights the functions have ---


@pytest.fixture
async def owner(server, database):
    name = f"owner_{secrets.token_hex(4)}"
    await administer(server, f"CREATE ROLE {name} LOGIN")
    yield name
    await administer(database, f"DROP OWNED BY {name} CASCADE")
    await administer(server, f"DROP ROLE {name}")


async def test_whose_rights_the_functions_have_is_said(application, owner, database, refresher):
    """Of a superuser and of a role that does not own the table, by attach and by the check."""
    whose = (
        "the functions of public.clips belong to {}, and a trigger on the table runs with its rights"
        " when a cover is written: "
    )
    check = ("attach", "--check", "--table", "public.clips")
    code, _, err = await refresher(*attach())
    line = f"{whose.format('postgres')}postgres is a superuser; best attach as a table's owner that is none"
    assert (code, err) == (0, f"refresher: {line}\n")
    assert f" {line}\n" in (await refresher(*check))[1]
    functions = "refresher.attached_clips"
    for kind in ("apply", "look_at", "carry", "next", "told", "account_told"):
        await application.execute(f"ALTER FUNCTION {functions}_{kind} OWNER TO {owner}")
    line = f"{whose.format(owner)}best attach as postgres, who owns the table"
    assert f" {line}\n" in (await refresher(*check))[1]
    await application.execute(f"GRANT USAGE ON SCHEMA refresher TO {owner}")
    await application.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {owner}")
    await application.execute(f"ALTER TABLE clips OWNER TO {owner}")
    assert "belong to" not in (await refresher(*check))[1]


SECURITY = (Path(__file__).parents[1] / "docs" / "security.md").read_text()


async def test_a_tables_owner_attaches_with_the_grants_that_are_documented(
    application, owner, database, refresher
):
    """Nothing is to be warned of, and no token is granted. Only dropping the common trigger is not its own."""
    (grants,) = re.findall(
        r"```sql\n( *GRANT USAGE, CREATE ON SCHEMA ref.*?)```", SECURITY, re.DOTALL
    )
    await application.execute(
        f"ALTER TABLE clips OWNER TO {owner}; ALTER TABLE users OWNER TO {owner};"
        f"GRANT USAGE ON SCHEMA public TO {owner};" + grants.replace("my_app_owner", owner)
    )
    url = database.replace("postgres:", f"{owner}:").replace("postgres@", f"{owner}@")
    assert await refresher(*attach(), url=url) == (
        0,
        (
            "attached public.clips: 2 videos added; the daemon writes covers into cover_url and"
            " cover_expires\n"
        ),
        "",
    )
    code, out, _ = await refresher("attach", "--check", "--table", "public.clips", url=url)
    assert (code, out.count("✗")) == (0, 0), out
    await application.execute("INSERT INTO clips (user_id, tiktok_id) VALUES (1, '3')")
    await store_covers(application)
    done, _ = await settled(application, database)
    assert (done.added, done.carried) == (1, 2)
    assert not await application.fetchval(
        "SELECT has_column_privilege($1, 'refresher.accounts', 'access_token', 'SELECT')", owner
    )
