"""Applications with an object-relational mapper of their own, whose tables are attached.

They run as published, each a program of its own, and do what their mapper does: save rows whole that
they had read long before, write in bulk, nest transactions. Rails and Laravel are in neither of the
two registries that these tests install from: their tables are in tests/test_attach_schemas.py.
"""

import asyncio
import json
import os
import shutil
from datetime import datetime

import pytest
from sqlalchemy import make_url

from tests.clients.test_clients import HERE, PYTHON, started
from tests.conftest import PATIENCE_SECONDS, administer, eventually
from tests.documented import block, framed

pytestmark = pytest.mark.clients

IDS = {"ann": 18, "bob": 15, "carl": 13}
#: For a program that waits for the daemon after each step.
ALL_STEPS_SECONDS = 10 * PATIENCE_SECONDS
EXTERNAL = {"token_management": "external"}


@pytest.fixture
async def world(serve):
    """TikTok with three accounts, whose tokens and videos the application knows."""
    world = await serve(cover_ttl=7200)
    for name in IDS:
        world.emulator.add_account(name, f"act.{name}")
    return world


def add_videos(world):
    """Video IDs by open_id."""
    ids = {name: [str(next(world.ids)) for _ in range(count)] for name, count in IDS.items()}
    for name, video_ids in ids.items():
        for video_id in video_ids:
            world.emulator.add_video(name, video_id)
    return ids


# --- Django ---

CLIPS = (
    *("--table", "public.clips_clip", "--video-id", "tiktok_id", "--account", "user_id"),
    *("--account-table", "public.clips_socialaccount", "--account-key", "user_id"),
    *("--open-id", "uid", "--account-where", "provider = 'tiktok'"),
    *("--cover", "cover", "--expires", "cover_expires", "--where", "deleted_at IS NULL"),
)
TOKENS = (
    *("--table", "public.clips_socialaccount", "--open-id", "uid"),
    *("--access-token", "access_token", "--access-token-expires", "access_token_expires"),
    *("--where", "provider = 'tiktok' AND uid NOT LIKE '%there'"),
)
#: One that Django runs in its own test database, which has no schema refresher.
OWN_TESTS = """
from django.test import TestCase

from clips.models import User


class Users(TestCase):
    def test_a_user_can_be_added(self):
        User.objects.create(name="ann")
"""
BEFORE = ("save_stale_rows", "save", "bulk", "update", "nest")
AFTER = ("get_or_create", "delete")


class Site:
    """The application's own copy of its code, and its commands."""

    def __init__(self, folder, database):
        self.folder = folder
        url = make_url(database)  # a socket's folder and port are in its query
        told = {"NAME": url.database, "USER": url.username, "PASSWORD": url.password or ""}
        told |= {"HOST": url.host or "", "PORT": url.port or ""}
        told |= {
            name.upper(): value for name, value in url.query.items() if name in {"host", "port"}
        }
        self.environment = os.environ | {"APPLICATION_DATABASE": json.dumps(told)}

    async def managed(self, *words):
        """Run a command of Django. What it said."""
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, "manage.py", *words),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environment,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        return said.decode()


@pytest.fixture
def site(tmp_path, database):
    folder = tmp_path / "site"
    shutil.copytree(HERE / "django_app", folder)
    return Site(folder, database)


DISAGREEING = """
WITH theirs AS (
    SELECT uid, tiktok_id, cover, cover_expires
    FROM clips_clip AS c JOIN clips_socialaccount AS s ON s.user_id = c.user_id AND provider = 'tiktok'
    WHERE deleted_at IS NULL
)
SELECT count(*)
FROM theirs FULL JOIN refresher.videos AS v ON v.open_id = uid AND v.video_id = tiktok_id
WHERE (cover, cover_expires)
      IS DISTINCT FROM (v.cover_image_url, date_trunc('second', v.cover_expires_at))
   OR cover_expires IS NULL OR cover_expires < now() OR cover NOT LIKE 'http%'
"""


async def until_agreed(pool, what, disagreeing):
    """Both sides have the same videos, each with the same living cover, and nothing waits."""

    async def agreed():
        return not await pool.fetchval(disagreeing) and not await pool.fetchval(
            "SELECT (SELECT count(*) FROM refresher.changed_rows)"
            " + (SELECT count(*) FROM refresher.changed_covers)"
        )

    await eventually(agreed, f"both sides to agree after: {what}")


async def each_agreed(pool, program, steps, disagreeing=DISAGREEING):
    for step in steps:
        assert await asyncio.to_thread(program.asked, step) == [step]
        await until_agreed(pool, step, disagreeing)


async def refreshed_but(pool, held):
    """All covers are refreshed; only the rows that the application holds keep their old ones."""
    # A second later, when URLs are other ones.
    began = await pool.fetchval(
        "UPDATE refresher.videos SET due_at = now() + interval '1 second' RETURNING now()"
    )

    async def refreshed():
        return await pool.fetchval(DISAGREEING) == held and not await pool.fetchval(
            "SELECT count(*) FROM refresher.videos WHERE refreshed_at < $1", began
        )

    await eventually(refreshed, f"new covers but for {held} rows")


async def clips_of(pool):
    """How many videos each account has at the end."""
    counts = await pool.fetch("SELECT open_id, count(*) FROM refresher.videos GROUP BY open_id")
    return dict(tuple(each) for each in counts)


@pytest.mark.long
async def test_django(pool, world, start, refresher, site):
    """A migration of its own attaches; whatever Django then writes, both sides agree."""
    await site.managed("makemigrations", "clips")
    await site.managed("migrate")
    migrations = site.folder / "clips/migrations"
    before = "0001_initial"
    for name, options in (("0002_attach_clips", CLIPS), ("0003_attach_tokens", TOKENS)):
        code, script, err = await refresher("attach", *options, "--print-sql", **EXTERNAL)
        assert (code, err) == (0, "")
        (migrations / f"{name}.sql").write_text(framed(script))
        (migrations / f"{name}.py").write_text(
            block("python", "from pathlib").replace("0001_initial", before)
        )
        before = name
    (site.folder / "clips/tests.py").write_text(OWN_TESTS)
    await site.managed("migrate")
    assert await site.managed("makemigrations", "--check") == "No changes detected\n"
    assert "\nOK\n" in await site.managed("test")
    daemon = await start(world, **EXTERNAL)
    command = (PYTHON, site.folder / "writes.py", json.dumps(add_videos(world)))
    with started(*command, env=site.environment, seconds=ALL_STEPS_SECONDS) as program:
        await each_agreed(pool, program, ("sign_up", *BEFORE))
        kind, held = await asyncio.to_thread(program.asked, "hold")
        assert (kind, held) == ("holding", 11)
        await refreshed_but(pool, held)
        assert await asyncio.to_thread(program.asked, "go on") == ["hold"]
        await until_agreed(pool, "hold", DISAGREEING)
        await each_agreed(pool, program, AFTER)
    assert await clips_of(pool) == {"ann": 11, "bob": 13}
    assert (
        await pool.fetchval(
            "SELECT (state, state_reason)::text FROM refresher.accounts WHERE open_id = 'carl'"
        )
        == "(paused,deleted_by_application)"
    )
    for table in ("clips_clip", "clips_socialaccount"):
        command = ("attach", "--check", "--table", f"public.{table}")
        code, out, _ = await refresher(*command, **EXTERNAL)
        assert (code, out.count("✗")) == (0, 0), out
    assert await daemon.stopped() == 0


# --- Prisma ---

NODE_CLIENTS = HERE.parents[1] / ".node-clients"
#: What `prisma migrate` makes of schema.prisma. The client needs no engine: it is made of packages
#: alone. The migrations' engine is downloaded from another place, which tests do not rely on.
PRISMA_TABLES = """
CREATE TABLE "User" ("id" UUID NOT NULL, "openId" TEXT, CONSTRAINT "User_pkey" PRIMARY KEY ("id"));
CREATE TABLE "Video" (
    "id" UUID NOT NULL, "videoId" TEXT NOT NULL, "ownerId" UUID NOT NULL, "title" TEXT,
    "coverImageUrl" TEXT, "coverExpiresAt" TIMESTAMP(3), "deletedAt" TIMESTAMP(3),
    "updatedAt" TIMESTAMP(3) NOT NULL, CONSTRAINT "Video_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "User_openId_key" ON "User"("openId");
CREATE UNIQUE INDEX "Video_ownerId_videoId_key" ON "Video"("ownerId", "videoId");
ALTER TABLE "Video" ADD CONSTRAINT "Video_ownerId_fkey" FOREIGN KEY ("ownerId") REFERENCES "User"("id")
    ON DELETE CASCADE ON UPDATE CASCADE
"""
VIDEOS = (
    *("--table", "public.Video", "--video-id", "videoId", "--account", "ownerId"),
    *("--account-table", "public.User", "--open-id", "openId", "--skip-without-open-id"),
    *("--cover", "coverImageUrl", "--expires", "coverExpiresAt"),
    *("--where", '"deletedAt" IS NULL'),
)
PRISMA_DISAGREEING = """
WITH theirs AS (
    SELECT "openId" AS open_id, "videoId" AS video_id, "coverImageUrl" AS cover,
           "coverExpiresAt" AT TIME ZONE 'UTC' AS expires
    FROM "Video" AS c JOIN "User" AS u ON u.id = "ownerId"
    WHERE "deletedAt" IS NULL
)
SELECT count(*)
FROM theirs AS t FULL JOIN refresher.videos AS v USING (open_id, video_id)
WHERE (t.cover, t.expires)
      IS DISTINCT FROM (v.cover_image_url, date_trunc('second', v.cover_expires_at))
   OR t.expires IS NULL OR t.expires < now() OR t.cover NOT LIKE 'http%'
"""
EXPIRIES = """
SELECT date_trunc('second', cover_expires_at) AS expires FROM refresher.videos ORDER BY cover_expires_at
"""
PRISMA_STEPS = ("sign_up", "save_stale_rows", "bulk", "upsert", "transactions", "remove")


@pytest.mark.skipif(
    not (NODE_CLIENTS / "locked").exists(), reason="make test-clients installs it where npm is"
)
async def test_prisma(pool, database, empty_database, world, start, refresher):
    """Its client writes as it likes; both sides agree after each step. A shadow database is passed by."""
    await pool.execute(PRISMA_TABLES)
    for name in IDS:
        await pool.execute(
            "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, 'act.' || $1)", name
        )
    code, script, err = await refresher("attach", *VIDEOS, "--print-sql")
    assert (code, err) == (0, "")
    await administer(empty_database, PRISMA_TABLES, framed(script))
    await pool.execute(framed(script))
    daemon = await start(world)
    found = os.environ | {"NODE_PATH": str(NODE_CLIENTS / "node_modules")}
    command = ("node", HERE / "prisma_app/writes.cjs", database, json.dumps(add_videos(world)))
    with started(*command, env=found, seconds=ALL_STEPS_SECONDS) as program:
        await each_agreed(pool, program, PRISMA_STEPS, PRISMA_DISAGREEING)
        _, *moments = await asyncio.to_thread(program.asked, "expiries")
    assert [datetime.fromisoformat(each) for each in moments] == [
        row["expires"] for row in await pool.fetch(EXPIRIES)
    ]
    assert await clips_of(pool) == {"ann": 11, "bob": 13}
    assert await daemon.stopped() == 0
