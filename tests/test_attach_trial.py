"""The trial of an attachment: an application of some size comes, is served, and leaves again.

What its writes cost meanwhile is benchmarks/attached_writes.py's to say.
"""

import sys
from time import monotonic

import pytest

from tests.conftest import eventually
from tests.faults import programs, run
from tests.test_integrate import ATTACH, TABLES, attach_command
from tests.test_tokens import CLIENT

ACCOUNTS, VIDEOS_EACH = 60, 50
TOKENS = attach_command("public.identities")
#: Each clip has the cover that is stored, to the second, and it is alive.
UNCOVERED = """
SELECT count(*)
FROM clips JOIN users ON users.id = user_id
LEFT JOIN refresher.videos AS v ON v.open_id = tiktok_open_id AND v.video_id = tiktok_id
WHERE (cover_url = v.cover_image_url AND cover_expires = date_trunc('second', v.cover_expires_at)
       AND cover_expires > now()) IS NOT TRUE
"""
#: Two users leave, two videos come, and one user is looked at.
BUSINESS = """
DELETE FROM identities WHERE uid IN ('user-1', 'user-2');
DELETE FROM users WHERE tiktok_open_id IN ('user-1', 'user-2');
INSERT INTO clips (user_id, tiktok_id) SELECT id, '1' FROM users WHERE id IN (3, 4);
UPDATE users SET tiktok_open_id = tiktok_open_id WHERE id = 5
"""


def schema_of(database):
    """The application's part of the database, as pg_dump writes it."""
    dump = run(programs() / "pg_dump", "--schema-only", "--schema=public", database)
    # Newer versions begin and end with a random word.
    return [line for line in dump.splitlines() if not line.startswith("\\")]


async def signed_up(world):
    """The users of the application, with tokens and videos that TikTok knows."""
    videos = [str(next(world.ids)) for _ in range(ACCOUNTS * VIDEOS_EACH)]
    accounts = []
    for number in range(1, ACCOUNTS + 1):
        name, pair = f"user-{number}", (f"act.user-{number}", f"rft.user-{number}")
        world.emulator.add_account(name, pair[0], refresh_token=pair[1])
        world.emulator.add_video(name, "1")
        accounts.append((name, *pair))
    await world.pool.executemany(
        "INSERT INTO identities (uid, access_token, refresh_token) VALUES ($1, $2, $3)", accounts
    )
    await world.pool.execute(
        "INSERT INTO users (tiktok_open_id) SELECT uid FROM identities ORDER BY length(uid), uid"
    )
    owned = [(1 + place // VIDEOS_EACH, video) for place, video in enumerate(videos)]
    for number, video in owned:
        world.emulator.add_video(f"user-{number}", video)
    await world.pool.executemany("INSERT INTO clips (user_id, tiktok_id) VALUES ($1, $2)", owned)


@pytest.mark.long
async def test_an_application_is_attached_served_and_left_as_it_was(
    pool, database, serve, start, refresher, capfd
):
    """3,000 videos and a table of tokens: living covers in its own column, then no trace.

    How long it took is told, not asserted.
    """
    world = await serve(cover_ttl=7200)
    await pool.execute(TABLES)
    await signed_up(world)
    before = schema_of(database)
    begun = monotonic()
    for command in (TOKENS, ATTACH):
        code, _, err = await refresher(*command, **CLIENT)
        assert (code, err) == (0, "")
    attached = monotonic()
    daemon = await start(world, **CLIENT)
    await eventually(lambda: all_covered(pool), "living covers in the application's own column")
    covered = monotonic()
    with capfd.disabled():
        sys.stdout.write(
            f"\n3,000 videos: attached in {attached - begun:.1f} s,"
            f" their covers there {covered - attached:.1f} s later\n"
        )
    await pool.execute(BUSINESS)
    await eventually(lambda: agreed(pool), "both sides with the same videos")
    await eventually(lambda: all_covered(pool), "the new videos' covers, too")
    assert await pool.fetchval("SELECT count(*) FROM clips") == (ACCOUNTS - 2) * VIDEOS_EACH + 2
    assert await daemon.stopped() == 0
    for table in ("public.clips", "public.identities"):
        code, _, err = await refresher("detach", "--table", table)
        assert (code, err) == (0, "")
    assert schema_of(database) == before
    assert (
        await pool.fetchval("SELECT count(*) FROM clips WHERE cover_expires > now()")
        == (ACCOUNTS - 2) * VIDEOS_EACH + 2
    )


async def all_covered(pool):
    return not await pool.fetchval(UNCOVERED)


async def agreed(pool):
    """Also those of users who have left are gone."""
    return await pool.fetchval(
        "SELECT (SELECT count(*) FROM refresher.videos) = (SELECT count(*) FROM clips)"
        " AND NOT EXISTS (SELECT FROM refresher.changed_rows)"
    )
