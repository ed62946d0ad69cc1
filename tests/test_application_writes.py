"""What an application writes over the daemon's rows: mended within two polls, and nobody parked."""

import asyncio
import secrets
import time
from datetime import UTC, datetime, timedelta
from time import monotonic

import asyncpg
import pytest

from refresher.csv_files import AccountRow
from refresher.domain.conclude import conclude
from refresher.domain.expiry import named_expiry
from refresher.domain.model import ChunkWrite, RefreshToken, Sample, TokenPair, Write
from refresher.postgres.claims import Claims
from refresher.postgres.database import connected
from refresher.postgres.imports import import_accounts
from refresher.postgres.migrate import migrate
from refresher.postgres.partitioning import partition_videos
from refresher.postgres.sealing import Sealer
from refresher.postgres.tokens import TokenStore, ignored_tokens
from refresher.postgres.write_back import write_back
from tests.conftest import administer, eventually, named
from tests.faults import own_server, programs, run

POLL_SECONDS = 1.0
#: Two polls, and what a claim, a request and a write-back take on a busy machine.
MENDED_SECONDS = 2 * POLL_SECONDS + 1.0
CLIENT = {"tiktok_client_key": "key-of-the-app", "tiktok_client_secret": "secret-of-the-app"}
KEY = "x" * 43 + "="
HOUR = timedelta(hours=1)
URL = "https://p16-sign.example.com/a~tplv.image?x-expires={}&x-signature=e%2FMf%3D&s=1"


@pytest.fixture(params=[0, 4], ids=["one table", "partitions"])
async def layout(request, database):
    if request.param:
        await partition_videos(database, request.param)


@pytest.fixture
async def stored(pool, layout):  # noqa: ARG001 - first the table, then its rows
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
    return Claims(
        pool, replica="a", lease_seconds=60, rate_limit_per_token=0, rate_limit_per_app=0
    )


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


UNDOUBTED = {
    "the same again": "cover_image_url = cover_image_url, cover_expires_at = cover_expires_at",
    "a newer one": f"cover_image_url = '{URL.format(1_999_999_999)}',"
    " cover_expires_at = cover_expires_at + interval '1 hour'",
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
    assert await write_back(stored, [chunk]) == [50]
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
    found = await pool.fetchval("SELECT extract(epoch FROM refresher.named_expiry($1))::float8", text)
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
    before = {r["video_id"]: r["due_at"] for r in await stored.fetch("SELECT * FROM refresher.videos")}
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
    assert await stored.fetchval("SELECT count(*) FROM refresher.videos WHERE open_id = 'new'") == 50
