"""Writing results back over real PostgreSQL: monotone, fenced, HOT."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from refresher.domain.model import ChunkWrite, Write
from refresher.postgres.migrate import migrate
from refresher.postgres.write_back import write_back
from tests.conftest import one_by_one, waits_for_a_lock
from tests.faults import own_server

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
URL = (
    "https://p16-sign.example.com/tos-x/a~tplv-noop:300:400.image?x-expires={}&x-signature=e%2FMf%3D&s="
    + "A" * 230
)

SQL_UPDATES = """
SELECT n_tup_upd, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relname = 'videos'
"""

#: No URL holds the former; all that one may hold are the latter.
CONTROLS = "".join(map(chr, range(1, 32)))
VISIBLE = "".join(map(chr, range(ord("!"), ord("~") + 1)))


def refreshed(*video_ids, hours):
    expires_at = NOW + hours * HOUR
    url = URL.format(int(expires_at.timestamp()))
    return Write([*video_ids], expires_at - HOUR, expires_at, [url] * len(video_ids))


def own_covers(open_id, ids, hours):
    """Of each a URL of its own."""
    expires_at = NOW + hours * HOUR
    urls = [own_url(open_id, video_id, expires_at) for video_id in ids]
    return Write(ids, expires_at - HOUR, expires_at, urls)


def own_url(open_id, video_id, expires_at):
    unix = int(expires_at.timestamp())
    return f"https://example.com/{open_id}/{video_id.encode().hex()}?x-expires={unix}&s=%2F"


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


async def located(pool, chunks):
    """The chunks as of claims that have just read their rows."""
    rows = await pool.fetch("SELECT open_id, video_id, ctid::text FROM refresher.videos")
    ctids = {(row["open_id"], row["video_id"]): row["ctid"] for row in rows}
    return [
        ChunkWrite(
            chunk.open_id,
            chunk.lease_epoch,
            chunk.writes,
            {
                video_id: ctids[chunk.open_id, video_id]
                for write in chunk.writes
                for video_id in write.video_ids
            },
        )
        for chunk in chunks
    ]


async def write(pool, *chunks):
    """Write back what was claimed just now."""
    return await write_back(pool, await located(pool, chunks))


async def test_a_refreshed_cover_is_stored_byte_for_byte(pool):
    """URL, expiry, due time and the time of refreshing; marks of earlier misses go."""
    await add(pool, "ana", "1")
    await write(pool, ChunkWrite("ana", 0, [Write(["1"], NOW, misses=3, missing=True, gone=True)]))
    row = await video(pool, "1")
    assert row["missing_since"] is not None
    assert row["gone_at"] is not None
    assert row["misses"] == 3
    covers = refreshed("1", hours=5)
    await write(pool, ChunkWrite("ana", 0, [covers]))
    row = await video(pool, "1")
    assert (row["cover_image_url"], row["cover_expires_at"]) == (
        *covers.urls,
        covers.cover_expires_at,
    )
    assert (row["due_at"], row["misses"], row["missing_since"], row["gone_at"]) == (
        covers.due_at,
        0,
        None,
        None,
    )
    assert row["refreshed_at"] is not None


@pytest.mark.parametrize("hours", [5, 4], ids=["same", "earlier"])
async def test_only_a_later_expiry_changes_a_cover(pool, hours):
    """An answer that comes late, or twice, changes nothing."""
    await add(pool, "ana", "1")
    await write(pool, ChunkWrite("ana", 0, [refreshed("1", hours=5)]))
    before = await video(pool, "1")
    await write(pool, ChunkWrite("ana", 0, [refreshed("1", hours=hours)]))
    assert await video(pool, "1") == before


async def test_a_miss_keeps_the_last_good_url(pool):
    """Missing and gone move the due time and nothing of the cover."""
    await add(pool, "ana", "1")
    await write(pool, ChunkWrite("ana", 0, [refreshed("1", hours=5)]))
    before = await video(pool, "1")
    await write(pool, ChunkWrite("ana", 0, [Write(["1"], NOW, misses=5, missing=True, gone=True)]))
    after = await video(pool, "1")
    for column in ("cover_image_url", "cover_expires_at", "refreshed_at"):
        assert after[column] == before[column]
    assert after["gone_at"] is not None


async def test_a_stale_lease_epoch_writes_nothing(pool):
    """Who lost the lease has lost the right to write."""
    await add(pool, "ana", "1")
    await pool.execute("UPDATE refresher.accounts SET lease_epoch = 7")
    await write(pool, ChunkWrite("ana", 6, [refreshed("1", hours=5)]))
    assert (await video(pool, "1"))["cover_image_url"] is None
    await write(pool, ChunkWrite("ana", 7, [refreshed("1", hours=5)]))
    assert (await video(pool, "1"))["cover_image_url"] is not None


async def mislocated(pool, chunks):
    """Half of the rows have moved since, and where they lay is another one."""
    chunks = await located(pool, chunks)
    moved = [(chunk.ctids, video_id) for chunk in chunks for video_id in [*chunk.ctids][::2]]
    places = [ctids[video_id] for ctids, video_id in moved]
    for (ctids, video_id), place in zip(moved, places[1:] + places[:1], strict=True):
        ctids[video_id] = place
    return chunks


async def beside_a_held_row(pool, chunks):
    """What `write_back` says of the chunks while an application holds a row of another one."""
    async with pool.acquire() as application, application.transaction():
        await application.execute("SELECT FROM refresher.videos WHERE open_id = 'held' FOR UPDATE")
        held = ChunkWrite("held", 0, [refreshed("held", hours=5)])
        *written, passed_over = await write_back(pool, await located(pool, [*chunks, held]))
        assert passed_over == 0
        return written


@pytest.fixture(params=["in-place", "moved", "nowhere", "beside-a-held-row"])
async def writing(pool, request):
    """Writes back: rows that lie where the claim has read them, that have moved, or beside a held one.

    That one is not among those to be checked.
    """
    await add(pool, "held", "held")

    async def written(chunks):
        match request.param:
            case "in-place":
                return await write_back(pool, await located(pool, chunks))
            case "moved":
                return await write_back(pool, await mislocated(pool, chunks))
            case "nowhere":
                return await write_back(pool, chunks)
            case _:
                return await beside_a_held_row(pool, chunks)

    return written


async def check_rows(pool, chunks):
    """Each row is as its write says and no other one, and has the URL that was made for it."""
    rows = {
        (row["open_id"], row["video_id"]): row
        for row in await pool.fetch("SELECT * FROM refresher.videos WHERE open_id <> 'held'")
    }
    assert len(rows) == sum(chunk.videos for chunk in chunks)
    for chunk in chunks:
        for write in one_by_one(chunk.writes):
            (video_id,) = write.video_ids
            row, expires_at = rows[chunk.open_id, video_id], write.cover_expires_at
            url = own_url(chunk.open_id, video_id, expires_at) if expires_at else None
            assert (row["cover_image_url"], row["cover_expires_at"]) == (url, expires_at)
            assert (row["due_at"], row["misses"]) == (write.due_at, write.misses)
            assert (row["refreshed_at"] is not None) == (url is not None)
            assert (row["missing_since"] is not None) == write.missing
            assert (row["gone_at"] is not None) == write.gone
            assert row["refusal"] == write.refusal


async def test_each_row_of_several_chunks_gets_its_own(pool, writing):
    """Covers of two expiries, misses and a refusal in each; IDs of one account are another's, too.

    In no order, and in different ones.
    """
    ids = [f"7{n * 7 % 60:03}" for n in range(60)]
    for open_id in ("ben", "ana"):
        await add(pool, open_id, *ids)
    chunks = [
        ChunkWrite(
            open_id,
            0,
            [
                own_covers(open_id, asked[:6], 5 + place),
                Write([asked[6]], NOW + place * HOUR, misses=1),
                own_covers(open_id, asked[7:16], 9 + place),
                Write([asked[16]], NOW, misses=3, missing=True, gone=True),
                Write(asked[17:19], NOW + HOUR, misses=2, missing=True),
                Write([asked[19]], NOW + 2 * HOUR, misses=4, refusal="invalid_params"),
            ],
        )
        for place, (open_id, asked) in enumerate(
            (open_id, ids[first : first + 20])
            for first in (40, 0, 20)
            for open_id in ("ben", "ana")
        )
    ]
    assert await writing(chunks) == [20] * 6
    await check_rows(pool, chunks)


@pytest.mark.parametrize(
    "odd",
    [
        "\x01",
        "\n",
        "\x02 \x01",
        CONTROLS,
        f"{CONTROLS} ",
        f"{CONTROLS} \x7f\x80",
        f"{CONTROLS} {VISIBLE}\x7f\x80\x81\u00e9\u2028\ud7ff\ue000\ufeff\uffff\U0001f3b5",
    ],
    ids=lambda odd: f"{len(odd)}-{odd[-1]!a}",
)
async def test_any_character_may_be_in_an_id(pool, writing, odd):
    """Of each its own URL, whether it begins, ends or is all of an ID, alone or twenty times."""
    mixed = [odd[first : first + 20] for first in range(len(odd))]
    ids = dict.fromkeys(
        part
        for character in odd
        for part in (
            character,
            2 * character,
            20 * character,
            f"7{character}",
            f"{character}7",
            f"7{character}{character}7",
        )
    )
    ids = [*ids | dict.fromkeys(mixed)]
    await add(pool, "ana", "1", "2")
    await add(pool, "ben", *ids)
    chunks = [
        ChunkWrite("ana", 0, [own_covers("ana", ["2", "1"], 5)]),
        ChunkWrite("ben", 0, [own_covers("ben", ids[::2], 5), Write(ids[1::2], NOW, misses=1)]),
    ]
    assert await writing(chunks) == [2, len(ids)]
    await check_rows(pool, chunks)
    again = [ChunkWrite("ben", 0, [own_covers("ben", ids, 9)])]
    assert await writing(again) == [len(ids)]
    await check_rows(pool, [chunks[0], *again])


async def test_nothing_to_write_is_nothing_written(pool):
    """No chunks, chunks without writes, and a write for no videos."""
    await add(pool, "ana", "1")
    before = await video(pool, "1")
    assert await write_back(pool, []) == []
    assert await write_back(pool, [ChunkWrite("ana", 0, []), ChunkWrite("ana", 0, [])]) == [0, 0]
    assert await write_back(pool, [ChunkWrite("ana", 0, [Write([], NOW)])]) == [0]
    assert await video(pool, "1") == before


async def test_a_row_that_an_application_holds_stops_nobody(pool):
    """The others are written, and the answer says how many of each chunk were."""
    await add(pool, "ana", "1", "2")
    await add(pool, "ben", "3")
    chunks = [
        ChunkWrite("ana", 0, [refreshed("1", "2", hours=5)]),
        ChunkWrite("ben", 0, [refreshed("3", hours=5)]),
    ]
    async with pool.acquire() as application, application.transaction():
        await application.execute("SELECT FROM refresher.videos WHERE video_id = '1' FOR UPDATE")
        assert await write(pool, *chunks) == [1, 1]
    assert (await video(pool, "1"))["cover_image_url"] is None
    assert await write(pool, *chunks) == [1, 0]


async def test_what_is_written_alike_is_written_in_one_transaction(pool):
    """Also where some of its rows have moved: one of them speaks for those written alike."""
    ids = [str(number) for number in range(20)]
    await add(pool, "ana", *ids)
    chunks = await mislocated(pool, [ChunkWrite("ana", 0, [own_covers("ana", ids, 5)])])
    assert await write_back(pool, chunks) == [20]
    assert await pool.fetchval("SELECT count(DISTINCT xmin::text) FROM refresher.videos") == 1


@pytest.mark.parametrize(("stored_hours", "written"), [(9, 1), (3, 2)], ids=["later", "earlier"])
async def test_a_lock_that_is_let_go_in_time_is_waited_for(pool, stored_hours, written):
    """And what was stored under it stands where it is the later one."""
    await add(pool, "ana", "1", "2")
    stored = refreshed("1", hours=stored_hours)
    (chunk,) = await located(pool, [ChunkWrite("ana", 0, [refreshed("1", "2", hours=5)])])
    async with pool.acquire() as application:
        transaction = application.transaction()
        await transaction.start()
        await application.execute(
            "UPDATE refresher.videos SET cover_image_url = $1, cover_expires_at = $2"
            " WHERE video_id = '1'",
            *stored.urls,
            stored.cover_expires_at,
        )
        writing = asyncio.create_task(write_back(pool, [chunk]))
        while not await waits_for_a_lock(pool):
            if writing.done():  # it has waited as long as it does, and left the row due
                break
        await transaction.commit()
        answered = await writing
    assert answered in ([written], [1])
    assert (await video(pool, "1"))["cover_expires_at"] == (
        stored if answered == [1] else refreshed("1", hours=5)
    ).cover_expires_at


async def test_a_deleted_video_stays_deleted(pool):
    """What an application deleted while it was asked for does not come back."""
    await add(pool, "ana", "1", "2")
    chunks = await located(pool, [ChunkWrite("ana", 0, [refreshed("1", "2", hours=5)])])
    await pool.execute("DELETE FROM refresher.videos WHERE video_id = '1'")
    assert await write_back(pool, chunks) == [1]
    assert await video(pool, "1") is None
    assert (await video(pool, "2"))["cover_image_url"]


@pytest.fixture
async def quiet_pool():
    """Of a server for itself: a session that just starts anywhere holds back what may be pruned."""
    with own_server() as server:
        await migrate(server.url)
        async with asyncpg.create_pool(server.url, min_size=1, max_size=1) as pool:
            yield pool


async def test_every_update_is_hot(quiet_pool):
    """From the first cover on: no index entry is written again, whole pages at a time."""
    ids = [f"7{n:018}" for n in range(2000)]
    open_id = f"-000{0:032}"
    await add(quiet_pool, open_id, *ids)
    for hours in (1, 2, 3):
        for start in range(0, 2000, 500):
            covers = refreshed(*ids[start : start + 500], hours=hours)
            assert await write(quiet_pool, ChunkWrite(open_id, 0, [covers])) == [500]
    await quiet_pool.execute("SELECT pg_stat_force_next_flush()")
    counts = await quiet_pool.fetchrow(SQL_UPDATES)
    assert counts["hot"] == counts["n_tup_upd"] == 6000
