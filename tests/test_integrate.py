"""docs/integrate/: what each page says, with its own SQL and programs."""

import asyncio
import json
import os
import secrets
import shlex
import shutil
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from aiohttp import web
from cryptography.fernet import Fernet
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.conftest import PATIENCE_SECONDS, administer, environment, eventually, free_port
from tests.documented import FENCED, PAGES, ROOT
from tests.faults import programs
from tests.test_attach import settled, store_covers
from tests.test_removal import revocations
from tests.test_tokens import CLIENT, authorize, standing

TABLES = (ROOT / "docs/integrate/application.sql").read_text().partition("CREATE TEMPORARY")[0]
KEYS = [Fernet.generate_key().decode() for _ in range(2)]


def written(name, language):
    """The blocks of a page in one language, in order."""
    page = PAGES[f"docs/integrate/{name}.md"]
    return [text for _, kind, text in FENCED.findall(page) if kind == language]


def command(text):
    """The words of a documented command, after its name."""
    words = shlex.split(text.replace("\\\n", ""))
    assert words[0] == "refresher"
    return words[1:]


def attach_command(table):
    """The words of the first command of docs/attach.md that attaches this table."""
    blocks = (text for _, kind, text in FENCED.findall(PAGES["docs/attach.md"]) if kind == "sh")
    return command(
        next(text for text in blocks if text.startswith(f"refresher attach --table {table} "))
    )


ATTACH = attach_command("public.clips")


@pytest.fixture
async def application(pool):
    """A user with two videos, who is known to the refresher."""
    await pool.execute(TABLES)
    await pool.execute(
        """
        INSERT INTO users (tiktok_open_id) VALUES ('ann');
        INSERT INTO clips (user_id, tiktok_id) VALUES (1, '1'), (1, '2');
        INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ann', 'act.ann');
        """
    )
    return pool


@pytest.fixture
async def my_app(server, database):
    """The application's role, by a name that only this test uses, and its URL."""
    name = f"my_app_{secrets.token_hex(4)}"
    await administer(server, f"CREATE ROLE {name} LOGIN PASSWORD 'pass-word-of-the-tests'")
    parts = urlsplit(database)
    place = parts.netloc.rpartition("@")[2]
    yield name, urlunsplit(parts._replace(netloc=f"{name}:pass-word-of-the-tests@{place}"))
    await administer(database, f"DROP OWNED BY {name}")
    await administer(server, f"DROP ROLE {name}")


# --- view.md ---


@pytest.fixture
async def view(application, database, refresher, my_app):
    """Made as the page says, with a cover in the one video."""
    await application.execute("ALTER TABLE clips DROP cover_url, DROP cover_expires")
    (attach,) = written("view", "sh")
    code, _, err = await refresher(*command(attach))
    assert (code, err) == (0, "")
    made, _ = written("view", "sql")
    await application.execute(made.replace("my_app", my_app[0]))
    await application.execute(f"GRANT SELECT ON clips TO {my_app[0]}")
    await store_covers(application)
    await application.execute(
        "UPDATE refresher.videos SET cover_image_url = NULL, cover_expires_at = NULL"
        " WHERE video_id = '2'"
    )
    await settled(application, database, carries=False)
    return application


async def test_the_view_shows_covers_to_a_role_without_rights_beside_it(view, my_app):
    """By the page's query: a video without a living cover comes, too, without a URL."""
    _, query = written("view", "sql")
    connection = await asyncpg.connect(my_app[1])
    try:
        rows = {row["tiktok_id"]: row["url"] for row in await connection.fetch(query)}
        assert rows["1"].startswith("https://cdn.example/1?")
        assert rows["2"] is None
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM refresher.videos")
    finally:
        await connection.close()
    assert [dict(row) for row in await view.fetch("SELECT alive FROM clip_covers ORDER BY 1")] == [
        {"alive": False},
        {"alive": True},
    ]


async def test_a_cover_is_found_by_the_primary_key(view):
    """As the page has the join, for the clips of one user among many."""
    await view.execute(
        """
        INSERT INTO users (tiktok_open_id) SELECT 'user-' || n FROM generate_series(1, 1000) AS n;
        INSERT INTO clips (user_id, tiktok_id)
        SELECT id, v FROM users, generate_series(10, 20) AS v;
        INSERT INTO refresher.accounts (open_id) SELECT tiktok_open_id FROM users WHERE id > 1;
        INSERT INTO refresher.videos (open_id, video_id)
        SELECT tiktok_open_id, tiktok_id FROM clips JOIN users ON users.id = user_id
        ON CONFLICT DO NOTHING;
        ANALYZE users, clips, refresher.videos
        """
    )
    _, query = written("view", "sql")
    plan = "\n".join(row[0] for row in await view.fetch(f"EXPLAIN {query}"))
    assert "videos_pkey" in plan
    assert "Seq Scan" not in plan


async def test_a_mapper_reads_the_view_and_writes_only_its_table(view, database):
    """The page's classes of SQLAlchemy."""
    (mapped, _) = written("view", "python")
    names = {"__name__": "mapped"}
    exec(compile(mapped, "view.md", "exec"), names)
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with AsyncSession(engine) as session:
            clips = list(await session.scalars(names["clips_with_covers"]()))
            covers = {clip.tiktok_id: clip.cover for clip in clips}
            assert covers["1"].alive
            assert covers["1"].expires > datetime.now(UTC)
            assert covers["2"].url is None
            clips[0].tiktok_id = "3"
            await session.commit()
    finally:
        await engine.dispose()
    assert await view.fetchval("SELECT count(*) FROM clips WHERE tiktok_id = '3'") == 1


# --- tokens.md ---

#: How a program of the page is asked to open a token that comes as its first argument.
OPENERS = {
    "python": (
        sys.executable,
        "py",
        "{program}\nimport sys\nprint(opened(sys.argv[1]), end='')\n",
    ),
    "js": ("node", "mjs", "{program}\nprocess.stdout.write(opened(process.argv[2]));\n"),
    "php": ("php", "php", "{program}\necho opened($argv[1]);\n"),
}


async def opened_by(language, folder, token, keys):
    """What the page's program in this language makes of it."""
    interpreter, ending, frame = OPENERS[language]
    (program,) = written("tokens", language)
    file = folder / f"opener.{ending}"
    file.write_text(frame.replace("{program}", program))
    process = await asyncio.create_subprocess_exec(
        *(interpreter, str(file), token),
        env={**os.environ, "REFRESHER_TOKEN_KEYS": ",".join(keys)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return out.decode() if process.returncode == 0 else err.decode()


@pytest.mark.parametrize("language", OPENERS)
async def test_a_borrowed_token_is_opened(language, pool, serve, start, my_app, tmp_path):
    """Sealed by a daemon, taken by the application's role, opened as the page says.

    With keys that are being changed; with wrong ones it says so. A plain token is itself.
    """
    if not shutil.which(OPENERS[language][0]):
        pytest.skip(f"not installed: {language}")
    world = await serve()
    await world.add_account("ann", 1)
    (token,) = await pool.fetchrow("SELECT access_token FROM refresher.accounts")
    daemon = await start(world, token_keys=KEYS[0])
    await world.until_valid(1)
    assert await daemon.stopped() == 0
    grant, ask, _ = written("tokens", "sql")
    await pool.execute(grant.replace("my_app", my_app[0]))
    connection = await asyncpg.connect(my_app[1])
    try:
        sealed = await connection.fetchval(ask.replace("OPEN_ID", "ann"))
        assert await connection.fetchval(ask) is None  # of nobody
    finally:
        await connection.close()
    assert sealed.startswith("gAAAA")
    assert await opened_by(language, tmp_path, sealed, KEYS[::-1]) == token
    assert await opened_by(language, tmp_path, token, KEYS) == token
    other = Fernet.generate_key().decode()
    told = await opened_by(language, tmp_path, sealed, [other])
    assert "InvalidToken" in told or "no key of REFRESHER_TOKEN_KEYS fits" in told


async def test_a_token_that_is_handed_on_is_used(pool, serve, start):
    """The page's UPDATE, for an account that waits as its token died."""
    world = await serve()
    await world.add_account("ann", 1)
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.dead'")
    daemon = await start(world, token_management="external")
    await daemon.until_event("account.parked")
    world.emulator.add_account("ann", "act.new")
    update = written("tokens", "sql")[-1]
    await pool.execute(update.replace("act.…", "act.new").replace("OPEN_ID", "ann"))
    await world.until_valid(1)
    assert await daemon.stopped() == 0


# --- removal.md ---

#: As the page asks of a sign-in.
COMES_BACK = """
UPDATE refresher.accounts
SET access_token = 'act.ben-new', state = 'active', state_reason = NULL WHERE open_id = 'ben'
"""


async def test_a_deleted_user_is_marked_then_removed_and_stays_so_after_a_restore(
    application, serve, database
):
    """The trigger marks, the job revokes and deletes; another account and a paused one stay."""
    world = await serve()
    mark, after_a_restore = written("removal", "sql")
    await application.execute("DELETE FROM refresher.accounts")
    for name in ("-ann", "ben", "cid"):
        await authorize(world, name, 1)
        await application.execute("INSERT INTO users (tiktok_open_id) VALUES ($1)", name)
    await application.execute(
        "UPDATE refresher.accounts SET state = 'paused' WHERE open_id = 'cid'"
    )
    await application.execute(mark)
    await application.execute("DELETE FROM users WHERE tiktok_open_id IN ('-ann', 'ben')")
    assert (await standing(application, "ben"))[0] == "paused"
    await application.execute(COMES_BACK)
    assert (await standing(application, "-ann"))[:2] == ("paused", "deleted_by_application")
    settings = {**CLIENT, "tiktok_base_url": world.base_url}
    assert await shell(written("removal", "sh")[0], environment(database, **settings)) == 0
    assert revocations(world) == [("-ann", "ok")]
    left = await application.fetch("SELECT open_id FROM refresher.accounts ORDER BY open_id")
    assert [row["open_id"] for row in left] == ["ben", "cid"]
    await application.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ('-ann', 'act.old')"
    )
    await application.execute(after_a_restore.replace("OPEN_ID", "-ann"))
    assert (await standing(application, "-ann"))[:2] == ("paused", "deleted_by_application")
    assert (await standing(application, "ben"))[0] == "active"


async def shell(lines, names):
    """The exit code of documented lines."""
    path = [os.path.dirname(sys.executable), str(programs()), os.environ["PATH"]]  # noqa: PTH120
    process = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", lines),
        env={**names, "PATH": os.pathsep.join(path)},
        stdout=asyncio.subprocess.DEVNULL,
    )
    return await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)


# --- changed-covers.md ---


@asynccontextmanager
async def receiving(answers):
    """Takes posts, and answers with the next of these statuses, in the end with 204. What came."""
    came = []

    async def take(request):
        came.append(json.loads(await request.text()))
        return web.Response(status=answers.pop(0) if answers else 204)

    runner = web.AppRunner(_routes(take))
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/", came
    finally:
        await runner.cleanup()


def _routes(take):
    application = web.Application()
    application.router.add_post("/", take)
    return application


async def test_the_outbox_tells_of_each_cover_that_is_carried(application, database, refresher):
    """At least once: what a receiver refuses comes again. No other write of the application."""
    outbox = written("changed-covers", "sql")[1]
    await application.execute(outbox)
    assert (await refresher(*ATTACH))[0] == 0
    await store_covers(application)
    done, refused = await settled(application, database)
    assert (done.carried, refused) == (2, [])
    await application.execute("UPDATE clips SET tiktok_id = tiktok_id")
    assert await application.fetchval("SELECT count(*) FROM cover_outbox") == 2
    stored = {row["id"]: row["cover_url"] for row in await application.fetch("TABLE clips")}
    (worker,) = written("changed-covers", "python")
    async with receiving([503]) as (url, came):
        names = {**os.environ, "DATABASE_URL": database, "RECEIVER_URL": url}
        for ends_by_itself in (True, False):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", worker), env=names, stderr=asyncio.subprocess.DEVNULL
            )
            try:
                if ends_by_itself:
                    assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 1
                else:
                    await eventually(lambda: is_empty(application), "an empty outbox")
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
    assert [{cover["id"]: cover["cover_url"] for cover in post} for post in came] == [stored] * 2


async def is_empty(pool):
    return not await pool.fetchval("SELECT count(*) FROM cover_outbox")


async def test_a_page_is_cached_no_longer_than_its_covers_live(application):
    """Ten minutes at most, as long as the first cover to die, and not at all with a dead one."""
    max_age = written("changed-covers", "sql")[0]
    async with application.acquire() as one, one.transaction():  # in which time stands still
        for lives, expected in (("1 hour", 600), ("90 seconds", 90), ("-1 hour", 0)):
            await one.execute(
                f"UPDATE clips SET cover_expires = now() + interval '{lives}' WHERE id = 1"
            )
            assert await one.fetchval(max_age) == expected
        await one.execute("DELETE FROM clips")
        assert await one.fetchval(max_age) == 0
