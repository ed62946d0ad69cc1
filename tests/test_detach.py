"""`detach`: what attach made is taken back, and no other attachment loses a video."""

import asyncio

import asyncpg
import pytest
from structlog.testing import capture_logs

from refresher.attachments import Attachments
from refresher.postgres.attached import read_attachments, walk_step
from tests.conftest import eventually, waits_for_a_lock
from tests.test_attach import APPLICATION, add_user, attach, settled, store_covers, stored

DIRECT = {
    "account_table": None,
    "open_id": None,
    "where": None,
    "video_id": "video_id",
    "account": "open_id",
    "cover": None,
    "expires": None,
}


@pytest.fixture
async def application(pool):
    """Two attached tables with a video in common; another one is of neither."""
    await pool.execute(APPLICATION)
    await pool.execute(
        "CREATE TABLE films (open_id text, video_id text, UNIQUE (open_id, video_id));"
        "INSERT INTO films VALUES ('ann', '2'), ('ann', '3')"
    )
    await add_user(pool, "ann", ["1", "2"])
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('ann', 'own')")
    return pool


async def test_a_video_that_another_attachment_has_too_is_taken_over_by_it(
    application, database, refresher
):
    """Told at once, not left to its walk. Then it is that one's to forget."""
    assert (await refresher(*attach()))[0] == 0
    assert (await refresher(*attach(table="films", **DIRECT)))[0] == 0
    await application.execute("DELETE FROM refresher.changed_rows")
    code, out, _ = await refresher("detach", "--table", "public.clips")
    assert (code, out) == (
        0,
        "detached public.clips: 2 videos taken away; what its own columns hold stays\n",
    )
    await settled(application, database)
    assert await stored(application) == {("ann", "2"), ("ann", "3"), ("ann", "own")}
    await application.execute("DELETE FROM films")
    await settled(application, database)
    assert await stored(application) == {("ann", "own")}


async def test_kept_videos_are_those_of_the_next_attachment_that_has_them(
    application, database, refresher
):
    """Whatever its table is called then. Their covers are never lost, and one deleted there is forgotten."""
    assert (await refresher(*attach()))[0] == 0
    await store_covers(application)
    assert (await refresher("detach", "--table", "public.clips", "--keep-videos"))[0] == 0
    await application.execute("ALTER TABLE clips RENAME TO shots")
    assert (await refresher(*attach(table="shots")))[0] == 0
    assert await application.fetchval(
        "SELECT bool_and(cover_image_url IS NOT NULL) FROM refresher.videos"
    )
    await application.execute("DELETE FROM shots WHERE tiktok_id = '1'")
    await settled(application, database)
    assert await stored(application) == {("ann", "2"), ("ann", "own")}


async def test_kept_videos_that_no_table_has_stay(application, database, refresher):
    """As if an application had inserted them."""
    assert (await refresher(*attach()))[0] == 0
    assert (await refresher("detach", "--table", "public.clips", "--keep-videos"))[0] == 0
    await application.execute("DELETE FROM clips WHERE tiktok_id = '1'")
    assert (await refresher(*attach()))[0] == 0
    (attachment,) = await read_attachments(application)
    await walk_step(application, attachment, lambda *said: pytest.fail(str(said)))
    assert await stored(application) == {("ann", "1"), ("ann", "2"), ("ann", "own")}


async def test_a_table_that_is_gone_is_detached(application, refresher):
    """Its triggers are gone with it; what else was made goes, too."""
    assert (await refresher(*attach()))[0] == 0
    await application.execute("DROP TABLE clips")
    assert (await refresher("detach", "--table", "public.clips"))[0] == 0
    assert not await application.fetchval(
        "SELECT count(*) FROM pg_proc WHERE proname LIKE 'attached\\_%'"
    )
    assert not await application.fetchval(
        "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'refresher\\_%'"
    )


async def test_detach_gives_way_to_whoever_writes_the_table(application, refresher):
    """It drops triggers, so it waits for all of them, in short tries; nothing is half done."""
    assert (await refresher(*attach()))[0] == 0
    async with application.acquire() as other, other.transaction():
        await other.execute("SELECT FROM clips")
        code, _, err = await refresher("detach", "--table", "public.clips")
    assert (code, err) == (
        2,
        (
            "refresher: somebody holds a lock on one of public.clips, public.users, refresher.videos,"
            " refresher.attachments: try again, or end that transaction\n"
        ),
    )
    code, out, _ = await refresher("attach", "--check", "--table", "public.clips")
    assert code == 0, out


async def test_the_printed_file_waits_for_a_detach_to_be_completed(application, refresher):
    """Else its triggers would stay, and tell nobody."""
    _, script, _ = await refresher(*attach(), "--print-sql")
    assert (await refresher(*attach()))[0] == 0
    await application.execute("UPDATE refresher.attachments SET detaching = true")
    with pytest.raises(asyncpg.RaiseError, match=r"detach of public\.clips was not completed"):
        await application.execute(script)
    assert (await refresher("detach", "--table", "clips"))[0] == 0
    await application.execute(script)
    assert len(await read_attachments(application)) == 1


async def test_a_table_that_is_attached_meanwhile_still_hears_of_covers(application, refresher):
    """detach drops the trigger on refresher.videos only where no table is left that carries."""
    assert (await refresher(*attach()))[0] == 0
    await application.execute("ALTER TABLE films ADD cover text")
    changed = DIRECT | {"table": "films", "cover": "cover"}
    _, script, _ = await refresher(*attach(**changed), "--print-sql")
    async with application.acquire() as other:
        await other.execute(f"BEGIN; {script}")
        detaching = asyncio.create_task(refresher("detach", "--table", "clips"))
        await eventually(lambda: waits_for_a_lock(application), "detach waiting for the attach")
        await other.execute("COMMIT")
    assert (await detaching)[0] == 0
    carried = "SELECT count(*) FROM pg_trigger WHERE tgname = 'videos_carried'"
    assert await application.fetchval(carried) == 1
    assert (await refresher("detach", "--table", "films"))[0] == 0
    assert await application.fetchval(carried) == 0


async def test_a_daemon_is_not_surprised_by_a_detach(application, refresher):
    """What still waits is told to functions that are gone: no warning for that."""
    assert (await refresher(*attach()))[0] == 0
    attachments = Attachments(application)
    await attachments.walk()
    await application.execute(
        "DELETE FROM clips; UPDATE refresher.attachments SET detaching = true;"
        "DROP FUNCTION refresher.attached_clips_apply, refresher.attached_clips_carry"
    )
    with capture_logs() as logs:
        await attachments.apply()
        await attachments.carry()
    assert logs == []
