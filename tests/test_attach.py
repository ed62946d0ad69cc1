"""`attach`: an application keeps its own table, and its covers are kept alive there."""

import asyncio
import signal

import asyncpg
import pytest

from tests.conftest import eventually

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
    assert (code, err) == (0, "")
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
