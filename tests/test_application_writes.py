"""What an application writes over the daemon's rows: mended within two polls, and nobody parked."""

import asyncio
import secrets
import time
from datetime import UTC, datetime, timedelta
from time import monotonic

import asyncpg
import pytest

from refresher.csv_files.rows import AccountRow
from refresher.domain.conclude import conclude
from refresher.domain.expiry import named_expiry
from refresher.domain.model import ChunkWrite, Sample, TokenPair, Write
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.database import connected
from refresher.postgres.imports import import_accounts
from refresher.postgres.migrate import migrate
from refresher.postgres.sealing import Sealer
from refresher.postgres.tokens import TokenStore, ignored_tokens
from refresher.postgres.write_back import write_back
from tests.conftest import administer, eventually, named, partition_videos
from tests.faults import own_server
from tests.test_migrations import CONTRACT

POLL_SECONDS = 1.0
#: Two polls, and what a claim, a request and a write-back take on a busy machine.
MENDED_SECONDS = 2 * POLL_SECONDS + 1.0
CLIENT = {"tiktok_client_key": "key-of-the-app", "tiktok_client_secret": "secret-of-the-app"}
KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
HOUR = timedelta(hours=1)
URL = "https://p16-sign.example.com/a~tplv.image?x-expires={}&x-signature=e%2FMf%3D&s=1"


@pytest.fixture(params=[0, 4], ids=["one table", "partitions"])
async def layout(request, database):
    if request.param:
        await partition_videos(database, request.param)


@pytest.fixture
async def stored(pool, layout):
    """Accounts `ana` and `ben`, fifty videos each, all covers fresh and both asleep."""
    for open_id in ("ana", "ben"):
        await pool.execute(
            "INSERT INTO refresher.accounts (open_id, access_token, scope)"
            " VALUES ($1, 'act.x', 'user.info.basic')",
            open_id,
        )
        await pool.execute(
            "INSERT INTO refresher.videos (open_id, video_id)"
            " SELECT $1, $1 || n FROM generate_series(1, 50) AS n",
            open_id,
        )
    for claim in await replica(pool).claim(100):
        await finish(pool, claim)
    return pool


def replica(pool):
    return Accounts(pool, replica="a", pace=Pace(0, 0, lease_seconds=60))


def url(expires_at):
    return URL.format(int(expires_at.timestamp()))


def covers(claim, hours=6.0):
    """As TikTok would answer."""
    expires_at = claim.time.now.replace(microsecond=0) + hours * HOUR
    ids = [video.video_id for video in claim.videos]
    return Write(ids, expires_at - HOUR, expires_at, [url(expires_at)] * len(ids))


async def finish(pool, claim, hours=6.0):
    write = covers(claim, hours)
    await write_back(pool, [ChunkWrite(claim.open_id, claim.lease_epoch, [write], claim.ctids)])
    samples = [Sample(write.video_ids[0], len(write.video_ids))] if write.video_ids else []
    await replica(pool).release([conclude(claim, [], 0.5, samples=samples)])


async def row_of(pool, open_id):
    return await pool.fetchrow(
        "SELECT *, now() AS now FROM refresher.accounts WHERE open_id = $1", open_id
    )


async def video(pool, video_id):
    return await pool.fetchrow(
        "SELECT *, now() AS now FROM refresher.videos WHERE video_id = $1", video_id
    )


async def asked(pool):
    """What is due now, by account, as the next claim has it; the leases go back."""
    claims = await replica(pool).claim(1000)
    await pool.execute(
        "UPDATE refresher.accounts SET lease_owner = NULL, lease_expires_at = NULL, wake_at = now()"
        " WHERE lease_owner IS NOT NULL"
    )
    return {
        claim.open_id: sorted(video.video_id for video in claim.videos if video.due)
        for claim in claims
    }


# --- What is taken for an application's write, and what follows ---

DOUBTFUL = {
    "emptied": "cover_image_url = NULL",
    "emptied, expiry too": "cover_image_url = NULL, cover_expires_at = NULL",
    "an old one": f"cover_image_url = '{URL.format(1_790_000_000)}',"
    " cover_expires_at = now() + interval '5 seconds'",
    "an old URL alone": f"cover_image_url = '{URL.format(1_790_000_000)}'",
    "a URL that says nothing": "cover_image_url = 'https://example.com/a.jpg'",
    "an old expiry alone": "cover_expires_at = now() - interval '1 day'",
    "a whole old row": "cover_image_url = 'https://example.com/a.jpg',"
    " cover_expires_at = now() + interval '5 seconds', refreshed_at = now() - interval '1 day',"
    " due_at = now() + interval '1 day', misses = 0, refusal = NULL, missing_since = NULL",
    "one that it takes for fresh": "cover_image_url = 'https://example.com/a.jpg',"
    " cover_expires_at = now() + interval '5 seconds', refreshed_at = now()",
    "the wish to ask at once": "due_at = now()",
    "a placeholder for years": "cover_image_url = 'https://example.com/a.jpg',"
    " cover_expires_at = now() + interval '10 years'",
    "a placeholder for ever": "cover_image_url = 'https://example.com/a.jpg',"
    " cover_expires_at = 'infinity'",
    "a URL of a far future": f"cover_image_url = '{URL.format(4_000_000_000)}',"
    " cover_expires_at = to_timestamp(4000000000)",
    "a URL of a far future alone": f"cover_image_url = '{URL.format(4_000_000_000)}'",
}


@pytest.mark.parametrize("change", DOUBTFUL.values(), ids=DOUBTFUL)
async def test_a_cover_that_was_changed_is_asked_for_at_once(stored, change):
    """The next claim has it, the answer is stored, and the account sleeps again."""
    before = await video(stored, "ana7")
    assert await asked(stored) == {}
    await stored.execute(f"UPDATE refresher.videos SET {change} WHERE video_id = 'ana7'")
    claims = await replica(stored).claim(1000)
    assert [claim.open_id for claim in claims] == ["ana"]
    assert [v.video_id for v in claims[0].videos if v.due] == ["ana7"]
    await finish(stored, claims[0], hours=7)
    after = await video(stored, "ana7")
    assert after["cover_expires_at"] > before["cover_expires_at"]
    assert after["cover_image_url"] == url(after["cover_expires_at"])
    account = await row_of(stored, "ana")
    assert (account["valid"], account["wake_at"] > account["now"]) == (50, True)


NEWER = (
    "cover_image_url = regexp_replace(cover_image_url, 'x-expires=\\d+', 'x-expires='"
    " || extract(epoch FROM date_trunc('second', cover_expires_at) + interval '1 hour')::bigint),"
    " cover_expires_at = date_trunc('second', cover_expires_at) + interval '1 hour'"
)
UNDOUBTED = {
    "the same again": "cover_image_url = cover_image_url, cover_expires_at = cover_expires_at",
    "a newer one": NEWER,
    "a newer one, its expiry with a fraction": f"{NEWER} + interval '300 ms'",
    "another column": "reserve = 'x'",
    "a mark": "missing_since = now()",
}


@pytest.mark.parametrize("change", UNDOUBTED.values(), ids=UNDOUBTED)
async def test_what_needs_no_mending_costs_nothing(stored, change):
    """A cover that the application renewed stays, nothing is asked, no account is written."""
    await stored.execute(f"UPDATE refresher.videos SET {change} WHERE video_id = 'ana7'")
    row, account = await video(stored, "ana7"), await row_of(stored, "ana")
    assert row["due_at"] > row["now"]
    assert account["wake_at"] > account["now"]
    assert await asked(stored) == {}


UNREADABLE = "https://example.com/a.jpg"


async def test_a_cover_of_ours_whose_url_says_nothing_keeps_its_expiry(stored):
    """The wish to ask at once, or a move, takes nothing away; only what is written is doubted."""
    await stored.execute(
        "UPDATE refresher.videos SET cover_image_url = $1, refreshed_at = now(),"
        " due_at = due_at + interval '1 second' WHERE video_id = 'ana7'",
        UNREADABLE,
    )
    before = await video(stored, "ana7")
    await stored.execute("UPDATE refresher.videos SET due_at = now() WHERE video_id = 'ana7'")
    after = await video(stored, "ana7")
    assert (after["cover_image_url"], after["cover_expires_at"]) == (
        UNREADABLE,
        before["cover_expires_at"],
    )
    assert await asked(stored) == {"ana": ["ana7"]}


GIVEN = {
    "for years": (UNREADABLE, timedelta(days=3650)),
    "for hours": (UNREADABLE, timedelta(hours=20)),
    "later than its URL says": (None, timedelta(days=20)),
}


@pytest.mark.parametrize("replication", ["origin", "replica"])
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
async def test_a_cover_that_comes_with_a_new_video_is_in_no_answers_way(stored, given, replication):
    """Its expiry is what its URL says, else nobody's word: the first answer is stored."""
    text, lives = given
    now = await stored.fetchval("SELECT now()")
    text = text or url(now + HOUR)
    async with stored.acquire() as application:
        await application.execute(f"SET session_replication_role = {replication}")
        await application.execute(
            "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at)"
            " VALUES ('ana', 'new', $1, $2)",
            text,
            now + lives,
        )
        await application.execute("RESET session_replication_role")
    row = await video(stored, "new")
    assert row["cover_image_url"] == text
    assert row["cover_expires_at"] == (
        None if text == UNREADABLE else now.replace(microsecond=0) + HOUR
    )
    (claim,) = await replica(stored).claim(1000)
    await finish(stored, claim, hours=7)
    row = await video(stored, "new")
    assert row["cover_image_url"] == url(row["cover_expires_at"])


@pytest.mark.parametrize("replication", ["origin", "replica"])
async def test_a_copy_of_a_refreshed_row_is_left_as_it_comes(stored, replication):
    """As a restore of the data, or a blue/green upgrade, writes it: due or not."""
    row = await stored.fetchrow(
        "UPDATE refresher.videos SET cover_image_url = $1, refreshed_at = now(),"
        " cover_expires_at = now() + interval '1 hour', due_at = now() - interval '1 second'"
        " WHERE video_id = 'ana7' RETURNING *",
        UNREADABLE,
    )
    async with stored.acquire() as restoring:
        await restoring.execute("DELETE FROM refresher.videos WHERE video_id = 'ana7'")
        await restoring.execute(f"SET session_replication_role = {replication}")
        await restoring.copy_records_to_table(
            "videos", schema_name="refresher", columns=list(row.keys()), records=[tuple(row)]
        )
        await restoring.execute("RESET session_replication_role")
    restored = await video(stored, "ana7")
    assert restored["cover_expires_at"] == row["cover_expires_at"]


async def test_what_a_new_video_brings_is_left_where_nothing_is_wrong_with_it(stored):
    """A cover that lives as its URL says, a dead one, one that is due later, none."""
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=10)
    await stored.execute(
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, due_at)"
        " SELECT 'ana', 'new' || number, url, expires, due FROM (VALUES"
        " (1, $1, $2::timestamptz, now()), (2, $3, now() - interval '1 day', now()),"
        " (3, $3, now() + interval '1 day', now() + interval '1 hour'),"
        " (4, NULL, now() + interval '1 day', now())) AS given (number, url, expires, due)",
        URL.format(int(later.timestamp())),
        later,
        UNREADABLE,
    )
    assert (
        await stored.fetchval(
            "SELECT count(cover_expires_at) FROM refresher.videos WHERE video_id LIKE 'new%'"
        )
        == 4
    )


#: What a video has that TikTok has left out for days.
GONE = (
    "UPDATE refresher.videos SET misses = 5, missing_since = now() - interval '1 day',"
    " gone_at = now() - interval '1 day', refusal = 'x', due_at = now() + interval '3 days'"
    " WHERE video_id = 'ana7'"
)


@pytest.mark.parametrize("forgotten", ["", "missing_since = NULL, gone_at = NULL, "])
async def test_a_newer_cover_of_a_video_that_rests_is_asked_for(stored, forgotten):
    """It was missing, gone or refused, and would be looked at long after this cover has died."""
    await stored.execute(GONE)
    assert await asked(stored) == {}
    await stored.execute(f"UPDATE refresher.videos SET {forgotten}{NEWER} WHERE video_id = 'ana7'")
    await stored.execute(  # asked for alone, after what is due beside it
        "UPDATE refresher.videos SET refusal = NULL WHERE video_id = 'ana7'"
    )
    assert await asked(stored) == {"ana": ["ana7"]}


@pytest.mark.parametrize("late", ["", "due_at = now() + interval '2 days'"])
@pytest.mark.parametrize("first", ["moved", "changed"])
async def test_a_video_moved_and_changed_in_one_transaction_is_both(stored, first, late):
    """An ORM's flushes: each is an UPDATE of its own, and what each means is not forgotten."""
    await stored.execute(GONE)
    moves = "UPDATE refresher.videos SET open_id = 'ben' WHERE video_id = 'ana7'"
    changes = f"UPDATE refresher.videos SET {NEWER} WHERE video_id = 'ana7'"
    async with stored.acquire() as application, application.transaction():
        for change in (moves, changes) if first == "moved" else (changes, moves):
            await application.execute(change)
        if late:
            await application.execute(f"UPDATE refresher.videos SET {late} WHERE video_id = 'ana7'")
    row = await video(stored, "ana7")
    assert (row["misses"], row["missing_since"], row["gone_at"], row["refusal"]) == (
        0,
        None,
        None,
        None,
    )
    assert row["cover_image_url"] == url(row["cover_expires_at"])
    assert await asked(stored) == {"ben": ["ana7"]}


async def test_another_video_keeps_the_cover_that_comes_with_a_later_flush(stored):
    """Of the same transaction: it is that video's own, and what was known of the old one goes."""
    await stored.execute(GONE)
    async with stored.acquire() as application, application.transaction():
        await application.execute(
            "UPDATE refresher.videos SET video_id = 'new' WHERE video_id = 'ana7'"
        )
        await application.execute(f"UPDATE refresher.videos SET {NEWER} WHERE video_id = 'new'")
    row = await video(stored, "new")
    assert (row["misses"], row["gone_at"], row["refreshed_at"]) == (0, None, None)
    assert row["cover_image_url"] == url(row["cover_expires_at"])
    assert await asked(stored) == {"ana": ["new"]}


async def test_a_doubtful_cover_stays_so_through_later_flushes(stored):
    """Of columns that say nothing of it."""
    async with stored.acquire() as application, application.transaction():
        await application.execute(f"{EMPTIED.replace('$1', chr(39) + 'ana7' + chr(39))}")
        await application.execute(
            "UPDATE refresher.videos SET due_at = now() + interval '2 days' WHERE video_id = 'ana7'"
        )
    assert await asked(stored) == {"ana": ["ana7"]}


@pytest.mark.parametrize("expiry", ["'infinity'", "NULL"])
async def test_an_expiry_that_the_url_belies_is_not_believed(stored, expiry):
    """Else no answer would ever be newer, and the cover would die unnoticed."""
    before = await video(stored, "ana7")
    await stored.execute(
        f"UPDATE refresher.videos SET cover_expires_at = {expiry} WHERE video_id = 'ana7'"
    )
    after = await video(stored, "ana7")
    assert after["cover_expires_at"] == before["cover_expires_at"]


async def test_a_video_that_went_to_another_account_is_asked_for_there(stored):
    """With what was learnt of it under the old one forgotten; its cover stays meanwhile."""
    await stored.execute(
        "UPDATE refresher.videos SET misses = 5, missing_since = now(), gone_at = now(),"
        " refusal = 'x', due_at = now() + interval '3 days' WHERE video_id = 'ana7'"
    )
    before = await video(stored, "ana7")
    await stored.execute("UPDATE refresher.videos SET open_id = 'ben' WHERE video_id = 'ana7'")
    after = await video(stored, "ana7")
    assert after["cover_image_url"] == before["cover_image_url"]
    assert after["cover_expires_at"] == before["cover_expires_at"]
    assert (after["misses"], after["missing_since"], after["gone_at"], after["refusal"]) == (
        0,
        None,
        None,
        None,
    )
    assert await asked(stored) == {"ben": ["ana7"]}


async def test_another_video_in_the_row_of_an_old_one_has_its_cover_no_more(stored):
    """A cover of the old one would be shown for it until a later one came."""
    await stored.execute("UPDATE refresher.videos SET video_id = 'new' WHERE video_id = 'ana7'")
    row = await video(stored, "new")
    assert (row["cover_image_url"], row["cover_expires_at"], row["refreshed_at"]) == (None,) * 3
    assert await asked(stored) == {"ana": ["new"]}


async def test_an_insert_is_no_move(stored):
    """Rows that come with covers, as an import's do, are due when they say so."""
    await stored.execute(
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, due_at)"
        " VALUES ('ben', 'new', 'https://x', now() + interval '1 day', now() + interval '23 hours')"
    )
    assert await asked(stored) == {}


async def test_a_write_in_a_long_transaction_is_never_missed(stored):
    """Claimed and given back by others while it is open: awake when it has committed."""
    async with stored.acquire() as application, application.transaction():
        await application.execute(
            "UPDATE refresher.videos SET cover_image_url = NULL WHERE video_id = 'ana7'"
        )
        await stored.execute("UPDATE refresher.videos SET due_at = now() WHERE video_id = 'ana8'")
        (claim,) = await replica(stored).claim(1000)  # not held up by it
        await finish(stored, claim, hours=7)
        assert await replica(stored).claim(1000) == []
    assert await asked(stored) == {"ana": ["ana7"]}


@pytest.mark.parametrize("worked", ["leased", "given back"])
@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_newer_covers_are_written_in_strict_isolation(stored, isolation, worked):
    """Though their account was claimed, or given back, since the application's snapshot."""
    await stored.execute("UPDATE refresher.videos SET due_at = now() WHERE video_id = 'ana8'")
    async with stored.acquire() as application, application.transaction(isolation=isolation):
        await application.fetchval("SELECT count(*) FROM refresher.videos")
        (claim,) = await replica(stored).claim(1000)
        other = "ana50"  # not among those that are written back
        assert other not in [v.video_id for v in claim.videos]
        if worked == "given back":
            await finish(stored, claim, hours=7)
        await application.execute(
            f"UPDATE refresher.videos SET {NEWER} WHERE video_id IN ($1, 'ben7')", other
        )
    if worked == "leased":
        await finish(stored, claim, hours=7)
    row = await video(stored, other)
    assert row["cover_expires_at"] > row["now"] + 6.5 * HOUR
    assert await asked(stored) == {}


async def test_in_strict_isolation_a_doubtful_cover_may_have_to_be_written_again(stored):
    """It fails as such transactions may, whole, rather than be left unasked; tried again it passes."""
    await stored.execute("UPDATE refresher.videos SET due_at = now() WHERE video_id = 'ana8'")
    async with stored.acquire() as application:
        for claims in (True, False):
            transaction = application.transaction(isolation="repeatable_read")
            await transaction.start()
            await application.fetchval("SELECT count(*) FROM refresher.videos")
            if claims:
                (claim,) = await replica(stored).claim(1000)
                await finish(stored, claim, hours=7)
            await application.execute(EMPTIED, "ana50")
            if claims:
                with pytest.raises(asyncpg.SerializationError):
                    await transaction.commit()
                assert (await video(stored, "ana50"))["cover_image_url"]
            else:
                await transaction.commit()
    assert await asked(stored) == {"ana": ["ana50"]}


async def test_a_write_while_the_account_is_worked_is_not_forgotten(stored):
    """The release keeps the wake-up, whether it counts the account or believes its samples."""
    await stored.execute("UPDATE refresher.videos SET due_at = now() WHERE open_id = 'ana'")
    (claim,) = await replica(stored).claim(1000)
    write = covers(claim, hours=7)
    chunk = ChunkWrite("ana", claim.lease_epoch, [write], claim.ctids)
    assert await write_back(stored, [chunk]) == [50]
    other = next(v for v in write.video_ids[1:])
    await stored.execute(
        "UPDATE refresher.videos SET cover_image_url = NULL WHERE video_id = $1", other
    )
    samples = [Sample(write.video_ids[0], 50)]
    await replica(stored).release([conclude(claim, [], 0.5, samples=samples)])
    assert await asked(stored) == {"ana": [other]}


async def test_applications_that_change_the_same_accounts_in_any_order_both_commit(stored):
    """A ring of locks on accounts is ours to undo: neither fails, and both accounts are awake."""
    change = "UPDATE refresher.videos SET cover_image_url = NULL WHERE video_id = $1"
    both = asyncio.Barrier(2)

    async def application(first, second):
        async with stored.acquire() as taken, taken.transaction():
            await taken.execute("SET CONSTRAINTS ALL IMMEDIATE")
            await taken.execute(change, first)
            await both.wait()
            await taken.execute(change, second)

    await asyncio.gather(application("ana1", "ben1"), application("ben2", "ana2"))
    assert await asked(stored) == {"ana": ["ana1", "ana2"], "ben": ["ben1", "ben2"]}


SQL_STATS = """
SELECT sum(n_tup_upd)::integer AS updates, sum(n_tup_hot_upd)::integer AS hot
FROM pg_stat_user_tables WHERE relname LIKE 'videos%'
"""


async def test_the_daemons_own_writes_fire_nothing(stored):
    """Every video is written once, HOT; no account is touched, and none is woken."""
    await stored.execute("SELECT pg_stat_force_next_flush()")
    before = await stored.fetchrow(SQL_STATS)
    accounts = "SELECT xmin::text, open_id FROM refresher.accounts ORDER BY open_id"
    await stored.execute("UPDATE refresher.videos SET due_at = now() WHERE open_id = 'ana'")
    (claim,) = await replica(stored).claim(1000)
    state = [tuple(row) for row in await stored.fetch(accounts)]
    chunk = ChunkWrite("ana", claim.lease_epoch, [covers(claim, 8)], claim.ctids)
    await stored.execute("VACUUM refresher.videos")  # room on the pages, whoever else runs
    assert await write_back(stored, [chunk]) == [50]
    await stored.execute("VACUUM refresher.videos")
    misses = [Write([v.video_id], claim.time.now, misses=1, missing=True) for v in claim.videos]
    assert await write_back(stored, [ChunkWrite("ana", claim.lease_epoch, misses)]) == [50]
    assert [tuple(row) for row in await stored.fetch(accounts)] == state
    await stored.execute("SELECT pg_stat_force_next_flush()")
    after = await stored.fetchrow(SQL_STATS)
    assert (after["updates"] - before["updates"]) == (after["hot"] - before["hot"]) == 150


@pytest.mark.parametrize(
    "text",
    [
        URL.format(1_796_000_000),
        "https://x/?X-Expires=1796000000",
        "https://x/?a=1&expires=1796000000&x-expires=1796000001",
        "https://x/?x-expires=1796000000123",
        "https://x/?x-expires=17960000001234567",
        "https://x/?x-expires=12",
        "https://x/?x-expires=",
        "https://x/?x-expires=99999999999",
        "https://x/?axx-expires=1796000000",
        "https://x/?x-expires=1796000000x",
        "https://x/?a=?x&x-expires=1796000000#&x-expires=1",
        "https://x/#?x-expires=1796000000",
        "https://x/&x-expires=1796000000",
        "",
    ],
)
async def test_both_read_the_same_expiry(pool, text):
    """The database's reading of a URL is refresher.domain.expiry's."""
    found = await pool.fetchval(
        "SELECT extract(epoch FROM refresher.named_expiry($1))::float8", text
    )
    assert found == named_expiry(text, time.time())


async def test_an_applications_role_needs_no_further_right(stored):
    """It may change covers, and nothing of accounts; the account wakes all the same."""
    role = f"shop_{secrets.token_hex(4)}"
    await stored.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA refresher TO {role};"
        f" GRANT SELECT, UPDATE ON refresher.videos TO {role}"
    )
    try:
        async with stored.acquire() as application, application.transaction():
            await application.execute(f"SET LOCAL ROLE {role}")
            await application.execute(
                "UPDATE refresher.videos SET open_id = 'ben', cover_image_url = NULL"
                " WHERE video_id = 'ana7'"
            )
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with application.transaction():
                    await application.execute("SELECT refresher.wake_account('ana', now())")
        assert await asked(stored) == {"ben": ["ana7"]}
    finally:
        await stored.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# --- An account's open_id ---


async def test_an_account_takes_its_videos_along(stored):
    """To its new open_id: what is due stays as it was, the lease ends, work goes on at once."""
    before = {
        r["video_id"]: r["due_at"] for r in await stored.fetch("SELECT * FROM refresher.videos")
    }
    await stored.execute("UPDATE refresher.videos SET due_at = now() WHERE video_id = 'ana7'")
    (claim,) = await replica(stored).claim(1000)
    await stored.execute("UPDATE refresher.accounts SET open_id = 'new' WHERE open_id = 'ana'")
    assert await asked(stored) == {"new": ["ana7"]}
    videos = await stored.fetch("SELECT * FROM refresher.videos WHERE open_id = 'new'")
    assert len(videos) == 50
    assert [v["video_id"] for v in videos if v["due_at"] != before[v["video_id"]]] == ["ana7"]
    late = ChunkWrite("new", claim.lease_epoch, [covers(claim)])
    assert await write_back(stored, [late]) == [0]


async def test_an_account_is_not_renamed_while_its_new_tokens_come(stored):
    """Whoever brings them would find no row to store them in."""
    await stored.execute(
        "UPDATE refresher.accounts SET token_request_until = now() + interval '1 minute'"
    )
    rename = "UPDATE refresher.accounts SET open_id = 'new' WHERE open_id = 'ana'"
    with pytest.raises(asyncpg.ObjectInUseError, match="ana cannot be renamed while"):
        await stored.execute(rename)
    await stored.execute("UPDATE refresher.accounts SET token_request_until = NULL")
    await stored.execute(rename)
    assert (
        await stored.fetchval("SELECT count(*) FROM refresher.videos WHERE open_id = 'new'") == 50
    )


# --- Rows of accounts that are saved whole ---


async def save_whole(pool, row, **changes):
    """As an ORM that has read this row does."""
    saved = dict(row) | changes
    columns = [name for name in saved if name not in {"open_id", "now"}]
    sets = ", ".join(f"{name} = ${number}" for number, name in enumerate(columns, 1))
    await pool.execute(
        f"UPDATE refresher.accounts SET {sets} WHERE open_id = 'ana'",
        *(saved[name] for name in columns),
    )


async def test_a_row_saved_whole_brings_none_of_the_daemons_columns_back(stored):
    """A lease that began since it was read stays, and its holder's writes count."""
    old = await row_of(stored, "ana")
    await stored.execute("UPDATE refresher.videos SET due_at = now() WHERE video_id = 'ana7'")
    (claim,) = await replica(stored).claim(1000)
    before = await row_of(stored, "ana")
    await save_whole(stored, old, scope="video.list")
    after = dict(await row_of(stored, "ana"))
    assert after["scope"] == "video.list"
    kept = ("lease_owner", "lease_epoch", "lease_expires_at", "next_slot_at", "videos", "valid")
    assert [after[name] for name in kept] == [before[name] for name in kept]
    assert after["tokens_generation"] == before["tokens_generation"] + 1
    chunk = ChunkWrite("ana", claim.lease_epoch, [covers(claim, 7)], claim.ctids)
    assert await write_back(stored, [chunk]) == [len(claim.videos)]


#: What every column of a kind is set to, for it to be another value than before.
OTHER = {
    "text": "'other'",
    "timestamp with time zone": "'2030-01-01 00:00Z'",
    "bigint": "77",
    "integer": "77",
    "smallint": "7",
    "double precision": "0.5",
    "bytea": "'\\x77'",
}
#: Where any other value is not allowed, or the lease itself is looked at.
OTHERS = {
    "token_standing": "'refused'",
    "lease_epoch": "lease_epoch + 1",
    "tokens_generation": "tokens_generation + 1",
}


async def test_a_row_saved_whole_keeps_every_column_of_ours_and_none_of_others(stored):
    """Also columns that an application has added; a column of ours that is new is to be kept, too."""
    await stored.execute("ALTER TABLE refresher.accounts ADD tenant_id integer DEFAULT 1")
    old = await row_of(stored, "ana")
    kinds = await stored.fetch(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'refresher' AND table_name = 'accounts'"
    )
    ours = {name: kind for name, kind in kinds if name not in {*CONTRACT["accounts"], "tenant_id"}}
    sets = ", ".join(f"{name} = {OTHERS.get(name, OTHER[kind])}" for name, kind in ours.items())
    await stored.execute(f"UPDATE refresher.accounts SET {sets} WHERE open_id = 'ana'")
    before = await row_of(stored, "ana")
    assert [name for name in ours if before[name] == old[name]] == []
    await save_whole(stored, old, tenant_id=2, state="paused")
    after = await row_of(stored, "ana")
    assert [name for name in ours if after[name] != before[name]] == []
    assert (after["tenant_id"], after["state"]) == (2, "paused")


async def test_a_row_that_was_read_under_a_lease_does_not_bring_it_back(stored):
    """The lease was given back since: the account sleeps, and is claimed when it wakes."""
    await stored.execute("UPDATE refresher.videos SET due_at = now() WHERE video_id = 'ana7'")
    (claim,) = await replica(stored).claim(1000)
    old = await row_of(stored, "ana")
    await finish(stored, claim, hours=7)
    before = await row_of(stored, "ana")
    await save_whole(stored, old, state_reason="seen")
    after = await row_of(stored, "ana")
    assert after["state_reason"] == "seen"
    changed = {name for name in dict(old) if after[name] != before[name]}
    assert changed <= {"state_reason", "now"}
    await stored.execute(EMPTIED, "ana9")
    assert await asked(stored) == {"ana": ["ana9"]}


# --- Tokens that come back ---

TOKENS = (
    "access_token",
    "access_token_expires_at",
    "refresh_token",
    "refresh_token_expires_at",
    "scope",
    "tokens_generation",
    "state",
)


async def authorized(pool, sealer, state="active"):
    """An account whose tokens were refreshed three times; every row that it had meanwhile."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
        " refresh_token, refresh_token_expires_at, scope) VALUES"
        " ('zoe', 'act.0', now() - interval '1 day', 'rft.0', now() + interval '1 day', 'video.list')"
    )
    store = TokenStore(pool, sealer)
    claims = Accounts(
        pool,
        replica="a",
        pace=Pace(0, 0, lease_seconds=60),
        managed=True,
        sealer=sealer,
    )
    rows = [await row_of(pool, "zoe")]
    for number in range(1, 4):
        (claim,) = [c for c in await claims.claim(100) if c.open_id == "zoe"]
        rows.append(await row_of(pool, "zoe"))
        used = await store.begin(claim)
        pair = TokenPair(f"act.{number}", 1.0, f"rft.{number}", 86_400.0, None)
        assert await store.replace(claim, used, pair, 0.0)
        await claims.release([conclude(claim, [], 0.5)])
        await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    await pool.execute("UPDATE refresher.accounts SET state = $1 WHERE open_id = 'zoe'", state)
    return rows


@pytest.mark.parametrize("state", ["active", "needs_reauthorization", "paused"])
@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["plain", "sealed"])
async def test_tokens_that_were_used_up_are_kept_out(pool, keys, state):
    """As they were given, as they stood in the row, as the last pair and as the first one."""
    rows = await authorized(pool, Sealer(keys), state)
    before = await row_of(pool, "zoe")
    for number, row in enumerate(rows, 1):
        await pool.execute(
            "UPDATE refresher.accounts SET access_token = $1, access_token_expires_at = $2,"
            " refresh_token = $3, refresh_token_expires_at = $4, scope = 'less'",
            *(row[name] for name in TOKENS[:4]),
        )
        after = await row_of(pool, "zoe")
        assert [after[name] for name in TOKENS] == [before[name] for name in TOKENS]
        assert after["tokens_ignored"] == number
    assert await ignored_tokens(pool) == [("zoe", len(rows))]
    assert await ignored_tokens(pool) == []
    await pool.execute("UPDATE refresher.accounts SET refresh_token = 'rft.1'")
    assert await ignored_tokens(pool) == []  # said within the hour already
    await pool.execute(
        "UPDATE refresher.accounts SET tokens_ignored_said = now() - interval '61 minutes'"
    )
    assert await ignored_tokens(pool) == [("zoe", 1)]


async def test_one_accounts_trigger_keeps_nobody_elses_ignored_tokens_unsaid(pool):
    """It cannot be noted in that account's row; of the other it is said."""
    for open_id in ("ana", "ben"):
        await pool.execute(
            "INSERT INTO refresher.accounts (open_id, tokens_ignored) VALUES ($1, 2)", open_id
        )
    await pool.execute(
        "CREATE FUNCTION public.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.open_id = 'ana' THEN RAISE 'not this one'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER meddle BEFORE UPDATE ON refresher.accounts"
        " FOR EACH ROW EXECUTE FUNCTION public.meddle()"
    )
    refused = []
    said = await ignored_tokens(pool, lambda open_id, _: refused.append(open_id))
    assert (said, refused) == ([("ben", 2)], ["ana"])


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["plain", "sealed"])
async def test_an_import_of_used_up_tokens_changes_nothing(pool, keys):
    """That is said, the file's other accounts are stored, and a dry run says the same before."""
    sealer = Sealer(keys)
    await authorized(pool, sealer)
    before = await row_of(pool, "zoe")
    later = datetime.now(UTC) + timedelta(days=1)
    rows = [
        AccountRow(2, "zoe", "act.0", later, "rft.0", later, None),
        AccountRow(3, "new", "act.n", later, "rft.n", later, None),
    ]
    for dry_run in (True, False):
        imported = await import_accounts(pool, rows, sealer, dry_run=dry_run)
        assert (imported.rows, imported.stored, imported.used_up) == (2, 1, 1)
    after = await row_of(pool, "zoe")
    assert [after[name] for name in TOKENS] == [before[name] for name in TOKENS]
    assert sealer.unseal((await row_of(pool, "new"))["refresh_token"]) == "rft.n"
    assert await ignored_tokens(pool) == []  # the import itself has said it


async def test_new_tokens_are_taken_at_any_time(pool):
    """A new authorization, the current pair once more, an access token beside the current one."""
    await authorized(pool, Sealer(()), "needs_reauthorization")
    generation = (await row_of(pool, "zoe"))["tokens_generation"]
    for number, change in enumerate(
        (
            "access_token = 'act.new', refresh_token = 'rft.new'",
            "access_token = 'act.0', access_token_expires_at = now() - interval '1 day'",
            "access_token = 'act.newer', refresh_token = NULL",
            "refresh_token = 'rft.newest'",
        ),
        1,
    ):
        await pool.execute(f"UPDATE refresher.accounts SET {change}")
        row = await row_of(pool, "zoe")
        assert (row["tokens_generation"], row["state"]) == (generation + number, "active")
    assert row["tokens_ignored"] == 0
    assert row["refresh_token"] == "rft.newest"


@pytest.mark.parametrize("given", [None, "rft.0"], ids=["none", "the same"])
async def test_a_refresh_token_that_was_not_rotated_is_not_used_up(pool, given):
    """TikTok may leave it as it is: then it counts as new whenever somebody stores it."""
    sealer = Sealer((KEY,))
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
        " refresh_token) VALUES ('zoe', 'act.0', now(), 'rft.0')"
    )
    claims = Accounts(
        pool,
        replica="a",
        pace=Pace(0, 0, lease_seconds=60),
        managed=True,
        sealer=sealer,
    )
    (claim,) = await claims.claim(10)
    store = TokenStore(pool, sealer)
    used = await store.begin(claim)
    pair = TokenPair("act.1", 86_400.0, given, None, None)
    before = await row_of(pool, "zoe")
    assert await store.replace(claim, used, pair, 3600.0)
    after = await row_of(pool, "zoe")
    assert after["refresh_token"] == before["refresh_token"]
    assert await pool.fetchval("SELECT count(*) FROM refresher.used_tokens") == 0
    await pool.execute("UPDATE refresher.accounts SET refresh_token = 'rft.0'")
    assert (await row_of(pool, "zoe"))["tokens_generation"] == after["tokens_generation"] + 1


async def test_what_is_remembered_of_an_account_is_bounded(pool):
    """The last ones, and those that come back again and again; it ends with the account."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, refresh_token) VALUES ('zoe', 'r0')"
    )
    for number in range(1, 60):
        await pool.execute(
            "UPDATE refresher.accounts SET tokens_generation = tokens_generation + 1,"
            " used_token = sha256(convert_to('p' || $1::text, 'UTF8')), refresh_token = 'r' || $1",
            str(number),
        )
        await pool.execute("UPDATE refresher.accounts SET refresh_token = 'p1'")
    remembered = "SELECT cardinality(fingerprints) FROM refresher.used_tokens"
    assert await pool.fetchval(remembered) == 32
    row = await row_of(pool, "zoe")
    assert (row["refresh_token"], row["tokens_ignored"]) == ("r59", 59)
    await pool.execute("UPDATE refresher.accounts SET open_id = 'zoë'")
    assert await pool.fetchval("SELECT open_id FROM refresher.used_tokens") == "zoë"
    await pool.execute("DELETE FROM refresher.accounts")
    assert await pool.fetchval(remembered) is None
    await pool.execute("TRUNCATE refresher.accounts, refresher.videos")


async def test_no_token_can_be_read_from_its_fingerprint(pool):
    """Neither table holds one of them."""
    await authorized(pool, Sealer((KEY,)))
    rows = await pool.fetch(
        "SELECT u::text || a::text AS text FROM refresher.used_tokens AS u, refresher.accounts AS a"
    )
    assert "rft." not in rows[0]["text"]
    assert b"rft.".hex() not in rows[0]["text"]


async def test_a_daemon_with_the_rights_of_before_stores_its_new_pair(pool):
    """It was given none to the new table: the only copy of a pair is not lost for that."""
    role = f"daemon_{secrets.token_hex(4)}"
    await pool.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA refresher TO {role};"
        f" GRANT SELECT, UPDATE ON refresher.accounts TO {role}"
    )
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, refresh_token) VALUES ('zoe', 'rft.0')"
    )
    try:
        async with pool.acquire() as daemon, daemon.transaction():
            await daemon.execute(f"SET LOCAL ROLE {role}")
            await daemon.execute(
                "UPDATE refresher.accounts SET tokens_generation = tokens_generation + 1,"
                " used_token = sha256('rft.0'), refresh_token = 'rft.1'"
            )
        await pool.execute("UPDATE refresher.accounts SET refresh_token = 'rft.0'")
        assert (await row_of(pool, "zoe"))["refresh_token"] == "rft.1"
    finally:
        await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# --- With a real daemon ---


async def authorize(world, name, videos, *, lives=3600):
    """An account with a pair of tokens that both sides know."""
    access, refresh = (f"{kind}.{name}-{secrets.token_hex(8)}" for kind in ("act", "rft"))
    now = time.time()
    world.emulator.add_account(
        name,
        access,
        access_token_expires_at=now + lives,
        refresh_token=refresh,
        refresh_token_expires_at=now + 86_400,
    )
    await world.pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
        " refresh_token, refresh_token_expires_at) VALUES ($1, $2, to_timestamp($3), $4,"
        " now() + interval '1 day')",
        name,
        access,
        now + lives,
        refresh,
    )
    return await world.add_videos(name, videos)


async def mended(condition, what):
    """Wait for at most two polls; how long it took."""
    begun = monotonic()
    await eventually(condition, what, MENDED_SECONDS)
    return monotonic() - begun


EMPTIED = "UPDATE refresher.videos SET cover_image_url = NULL WHERE video_id = $1"
SAVED_WHOLE = """
UPDATE refresher.videos
SET cover_image_url = regexp_replace(cover_image_url, 'x-expires=\\d+', 'x-expires=1790000000'),
    cover_expires_at = now() + interval '5 seconds', refreshed_at = now() - interval '1 day',
    due_at = due_at + interval '1 day', misses = 0, missing_since = NULL, gone_at = NULL
WHERE video_id = $1
"""


@pytest.mark.usefixtures("layout")
async def test_whatever_an_application_writes_is_mended_within_two_polls(serve, start):
    """A cover emptied, an old one saved, a video moved: fresh again, nobody parked, no audit."""
    world = await serve(cover_ttl=3600)
    ids = await world.add_account("ana", 60)
    await world.add_account("ben", 20)
    daemon = await start(world, poll_seconds=POLL_SECONDS, lead_seconds=60, spread_seconds=1)
    await world.until_valid(80)
    await world.until_no_leases()

    async def is_fresh(video_id, since):
        row = await video(world.pool, video_id)
        return (
            row["cover_image_url"]
            and row["refreshed_at"] > since
            and row["cover_expires_at"] > row["now"] + timedelta(minutes=30)
        )

    for change in (EMPTIED, SAVED_WHOLE):
        since = await world.pool.fetchval("SELECT clock_timestamp()")
        await world.pool.execute(change, ids[0])
        await mended(lambda since=since: is_fresh(ids[0], since), change)
    world.emulator.remove_video("ana", ids[1])
    world.emulator.add_video("ben", ids[1])
    await world.pool.execute(
        "UPDATE refresher.videos SET cover_expires_at = now(), refreshed_at = now(),"
        " due_at = now() + interval '1 hour' WHERE video_id = $1",
        ids[1],
    )
    since = await world.pool.fetchval("SELECT clock_timestamp()")
    await world.pool.execute(
        "UPDATE refresher.videos SET open_id = 'ben' WHERE video_id = $1", ids[1]
    )
    await mended(lambda: is_fresh(ids[1], since), "the video's cover under its new account")
    since = await world.pool.fetchval("SELECT clock_timestamp()")
    await world.pool.execute("UPDATE refresher.accounts SET open_id = 'new' WHERE open_id = 'ben'")
    await world.pool.execute(EMPTIED, ids[1])
    await mended(lambda: is_asked(daemon, "new"), "the account under its new open_id")
    assert await daemon.stopped() == 0
    assert not daemon.events("account.parked")
    assert not daemon.events("account.mended")
    assert not daemon.events("account.failed")


async def is_asked(daemon, open_id):
    return any(line["open_id"] == open_id for line in daemon.events("account.refreshed"))


@pytest.mark.parametrize("keys", ["", KEY], ids=["plain", "sealed"])
async def test_an_old_pair_of_tokens_saved_again_parks_nobody(serve, start, keys):
    """TikTok refuses used refresh tokens at once; the row keeps its pair, and that is said."""
    world = await serve(cover_ttl=3600, refresh_token_rotation="strict", old_access_tokens="die")
    ids = await authorize(world, "ana", 20, lives=-1)
    first = await row_of(world.pool, "ana")
    settings = {"poll_seconds": POLL_SECONDS, **CLIENT, **({"token_keys": keys} if keys else {})}
    daemon = await start(world, **settings)
    await world.until_valid(20)
    await world.until_no_leases()
    before = await row_of(world.pool, "ana")
    assert before["refresh_token"] != first["refresh_token"]
    await world.pool.execute(
        "UPDATE refresher.accounts SET access_token = $1, access_token_expires_at = $2,"
        " refresh_token = $3, refresh_token_expires_at = $4, scope = $5, state = 'active'",
        *(first[name] for name in TOKENS[:5]),
    )
    await world.pool.execute(EMPTIED, ids[3])

    async def is_filled():
        return (await video(world.pool, ids[3]))["cover_image_url"]

    await mended(is_filled, "a cover asked for with the current token")
    after = await row_of(world.pool, "ana")
    assert [after[name] for name in TOKENS] == [before[name] for name in TOKENS]
    said = await daemon.until_event("tokens.ignored")
    assert (said["open_id"], said["writes"]) == ("ana", 1)
    # An old access token beside the current refresh token costs one refresh, and nobody's consent.
    await world.pool.execute(
        "UPDATE refresher.accounts SET access_token = $1, access_token_expires_at = now()"
        " + interval '1 day'",
        first["access_token"],
    )
    await world.pool.execute(EMPTIED, ids[4])

    async def is_filled_too():
        return (await video(world.pool, ids[4]))["cover_image_url"]

    await eventually(is_filled_too, "a cover asked for with a new token")
    assert await daemon.stopped() == 0
    assert not daemon.events("account.parked")
    assert (await row_of(world.pool, "ana"))["state"] == "active"


# --- Rows that come by logical replication ---


async def test_rows_that_a_replication_brings_wake_their_account(stored):
    """Inserted, or changed without the daemon's due_at; a daemon's own, copied, wake nobody."""
    async with stored.acquire() as applying:
        await applying.execute("SET session_replication_role = replica")
        await applying.execute("INSERT INTO refresher.videos VALUES ('ana', 'new')")
        assert await asked(stored) == {"ana": ["new"]}
        (claim,) = await replica(stored).claim(1000)
        await finish(stored, claim, hours=7)
        assert await asked(stored) == {}
        await applying.execute(
            "UPDATE refresher.videos SET cover_image_url = 'https://x', refreshed_at = now(),"
            " cover_expires_at = now() + interval '9 hours', due_at = now() + interval '8 hours'"
            " WHERE video_id = 'ana7'"
        )
        await applying.execute(
            "UPDATE refresher.videos SET cover_image_url = 'https://x',"
            " refreshed_at = now() - interval '3 s', cover_expires_at = now() + interval '9 hours',"
            " due_at = now() + interval '8 hours' WHERE video_id = 'ana8'"
        )
        assert await asked(stored) == {}
        await applying.execute(f"{EMPTIED.replace('$1', chr(39) + 'ana9' + chr(39))}")
        assert await asked(stored) == {"ana": ["ana9"]}
        await applying.execute("SET session_replication_role = origin")


#: What an application has in a database of its own.
SOURCE = """
CREATE SCHEMA refresher;
CREATE TABLE refresher.accounts (open_id text PRIMARY KEY, access_token text, refresh_token text,
                                 note text);
CREATE TABLE refresher.videos (open_id text, video_id text, PRIMARY KEY (open_id, video_id));
INSERT INTO refresher.accounts VALUES ('ana', 'act.0', 'rft.0');
INSERT INTO refresher.videos SELECT 'ana', 'ana' || n FROM generate_series(1, 30) AS n;
CREATE PUBLICATION application FOR TABLE refresher.videos,
    refresher.accounts (open_id, access_token, refresh_token)
"""


@pytest.mark.long
@pytest.mark.parametrize("partitions", [0, 4])
async def test_an_application_may_live_on_another_server(partitions):
    """Its rows come by a subscription: they wake their account, and old tokens are kept out."""
    with own_server() as server:
        await administer(server.url, "ALTER SYSTEM SET wal_level = logical")
        server.restart("fast")
        await administer(server.url, "CREATE DATABASE source", "CREATE DATABASE ours")
        source, ours = named(server.url, "source"), named(server.url, "ours")
        await administer(source, SOURCE)
        await migrate(ours)
        if partitions:
            await partition_videos(ours, partitions)
        slot = "SELECT pg_create_logical_replication_slot('application', 'pgoutput')"
        await administer(source, slot)
        await administer(
            ours,
            f"CREATE SUBSCRIPTION application CONNECTION '{source}' PUBLICATION application"
            " WITH (create_slot = false, slot_name = 'application')",
        )
        async with connected(ours, application_name="tests") as pool:

            async def sleeps():
                claims = await replica(pool).claim(1000)
                for claim in claims:
                    await finish(pool, claim, hours=7)
                row = await row_of(pool, "ana")
                return row and row["videos"] == 30 and row["wake_at"] > row["now"]

            await eventually(sleeps, "the first copy, all its covers fetched")
            await administer(source, "INSERT INTO refresher.videos VALUES ('ana', 'new')")

            async def is_asked_for():
                return await asked(pool) == {"ana": ["new"]}

            await eventually(is_asked_for, "a video that was added at the source")
            await pool.execute(
                "UPDATE refresher.accounts SET tokens_generation = tokens_generation + 1,"
                " used_token = sha256('rft.0'), access_token = 'act.1', refresh_token = 'rft.1'"
            )
            await administer(source, "UPDATE refresher.accounts SET note = 'x', access_token = 'b'")

            async def is_kept_out():
                return (await row_of(pool, "ana"))["tokens_ignored"]

            await eventually(is_kept_out, "an old row of tokens")
            assert (await row_of(pool, "ana"))["access_token"] == "act.1"
            generation = (await row_of(pool, "ana"))["tokens_generation"]
            await administer(
                source, "UPDATE refresher.accounts SET access_token = 'a', refresh_token = 'new'"
            )

            async def is_taken():
                return (await row_of(pool, "ana"))["tokens_generation"] > generation

            await eventually(is_taken, "a new authorization")
        await administer(ours, "DROP SUBSCRIPTION application")
