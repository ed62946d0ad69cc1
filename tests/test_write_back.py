"""Writing results back over real PostgreSQL: monotone, fenced, HOT."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from refresher.domain.model import ChunkWrite, Cover, Write
from refresher.postgres.write_back import write_back

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
URL = (
    "https://p16-sign.example.com/tos-x/a~tplv-noop:300:400.image?x-expires={}&x-signature=e%2FMf%3D&s="
    + "A" * 230
)

SQL_UPDATES = """
SELECT n_tup_upd, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relname = 'videos'
"""


def refreshed(video_id, hours):
    expires_at = NOW + hours * HOUR
    return Write(
        video_id, expires_at - HOUR, Cover(URL.format(int(expires_at.timestamp())), expires_at)
    )


async def add(pool, open_id, *video_ids):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, lease_epoch) VALUES ($1, 0)", open_id
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id) SELECT $1, unnest($2::text[])",
        open_id,
        video_ids,
    )


async def video(pool, video_id):
    return await pool.fetchrow("SELECT * FROM refresher.videos WHERE video_id = $1", video_id)


async def test_a_refreshed_cover_is_stored_byte_for_byte(pool):
    """URL, expiry, due time and the time of refreshing; marks of earlier misses go."""
    await add(pool, "ana", "1")
    await write_back(
        pool, [ChunkWrite("ana", 0, [Write("1", NOW, misses=3, missing=True, gone=True)])]
    )
    row = await video(pool, "1")
    assert row["missing_since"] is not None
    assert row["gone_at"] is not None
    assert row["misses"] == 3
    write = refreshed("1", 5)
    await write_back(pool, [ChunkWrite("ana", 0, [write])])
    row = await video(pool, "1")
    assert (row["cover_image_url"], row["cover_expires_at"]) == (
        write.cover.url,
        write.cover.expires_at,
    )
    assert (row["due_at"], row["misses"], row["missing_since"], row["gone_at"]) == (
        write.due_at,
        0,
        None,
        None,
    )
    assert row["refreshed_at"] is not None


@pytest.mark.parametrize("hours", [5, 4], ids=["same", "earlier"])
async def test_only_a_later_expiry_changes_a_cover(pool, hours):
    """An answer that comes late, or twice, changes nothing."""
    await add(pool, "ana", "1")
    await write_back(pool, [ChunkWrite("ana", 0, [refreshed("1", 5)])])
    before = await video(pool, "1")
    await write_back(pool, [ChunkWrite("ana", 0, [refreshed("1", hours)])])
    assert await video(pool, "1") == before


async def test_a_miss_keeps_the_last_good_url(pool):
    """Missing and gone move the due time and nothing of the cover."""
    await add(pool, "ana", "1")
    await write_back(pool, [ChunkWrite("ana", 0, [refreshed("1", 5)])])
    before = await video(pool, "1")
    await write_back(
        pool, [ChunkWrite("ana", 0, [Write("1", NOW, misses=5, missing=True, gone=True)])]
    )
    after = await video(pool, "1")
    for column in ("cover_image_url", "cover_expires_at", "refreshed_at"):
        assert after[column] == before[column]
    assert after["gone_at"] is not None


async def test_a_stale_lease_epoch_writes_nothing(pool):
    """Who lost the lease has lost the right to write."""
    await add(pool, "ana", "1")
    await pool.execute("UPDATE refresher.accounts SET lease_epoch = 7")
    await write_back(pool, [ChunkWrite("ana", 6, [refreshed("1", 5)])])
    assert (await video(pool, "1"))["cover_image_url"] is None
    await write_back(pool, [ChunkWrite("ana", 7, [refreshed("1", 5)])])
    assert (await video(pool, "1"))["cover_image_url"] is not None


async def test_a_row_that_an_application_holds_stops_nobody(pool):
    """The others are written, and the answer says how many of each chunk were."""
    await add(pool, "ana", "1", "2")
    await add(pool, "ben", "3")
    chunks = [
        ChunkWrite("ana", 0, [refreshed("1", 5), refreshed("2", 5)]),
        ChunkWrite("ben", 0, [refreshed("3", 5)]),
    ]
    async with pool.acquire() as application, application.transaction():
        await application.execute("SELECT FROM refresher.videos WHERE video_id = '1' FOR UPDATE")
        assert await write_back(pool, chunks) == [1, 1]
    assert (await video(pool, "1"))["cover_image_url"] is None
    assert await write_back(pool, chunks) == [1, 0]


@pytest.mark.parametrize(("stored_hours", "written"), [(9, 1), (3, 2)], ids=["later", "earlier"])
async def test_a_lock_that_is_let_go_in_time_is_waited_for(pool, stored_hours, written):
    """And what was stored under it stands where it is the later one."""
    await add(pool, "ana", "1", "2")
    stored = refreshed("1", stored_hours)
    chunk = ChunkWrite("ana", 0, [refreshed("1", 5), refreshed("2", 5)])
    async with pool.acquire() as application:
        transaction = application.transaction()
        await transaction.start()
        await application.execute(
            "UPDATE refresher.videos SET cover_image_url = $1, cover_expires_at = $2"
            " WHERE video_id = '1'",
            stored.cover.url,
            stored.cover.expires_at,
        )
        writing = asyncio.create_task(write_back(pool, [chunk]))
        while not await application.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            if writing.done():  # it has waited as long as it does, and left the row due
                break
        await transaction.commit()
        answered = await writing
    assert answered in ([written], [1])
    assert (await video(pool, "1"))["cover_expires_at"] == (
        stored if answered == [1] else refreshed("1", 5)
    ).cover.expires_at


async def test_a_deleted_video_stays_deleted(pool):
    """What an application deleted while it was asked for does not come back."""
    await add(pool, "ana", "1", "2")
    await pool.execute("DELETE FROM refresher.videos WHERE video_id = '1'")
    await write_back(pool, [ChunkWrite("ana", 0, [refreshed("1", 5), refreshed("2", 5)])])
    assert await video(pool, "1") is None
    assert (await video(pool, "2"))["cover_image_url"]


async def test_every_update_is_hot(database, pool):
    """From the first cover on: no index entry is written again, whole pages at a time.

    Tried up to three times: a session that is just starting elsewhere on the server holds back what
    may be cleaned on a page, for a moment.
    """
    for attempt in range(3):
        updates, hot = await rewritten(pool, f"-000{attempt:032}")
        assert updates == 6000
        if hot == updates:
            return
    assert hot == updates


async def rewritten(pool, open_id):
    """Updates of 2,000 videos that each got three covers, and how many of them were HOT."""
    before = await pool.fetchrow(SQL_UPDATES)
    ids = [f"7{n:018}" for n in range(2000)]
    await add(pool, open_id, *ids)
    for hours in (1, 2, 3):
        for start in range(0, 2000, 500):
            writes = [refreshed(video_id, hours) for video_id in ids[start : start + 500]]
            await write_back(pool, [ChunkWrite(open_id, 0, writes)])
    await pool.execute("SELECT pg_stat_force_next_flush()")
    after = await pool.fetchrow(SQL_UPDATES)
    return after["n_tup_upd"] - before["n_tup_upd"], after["hot"] - before["hot"]
