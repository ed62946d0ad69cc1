"""Leases, chunks and slots over real PostgreSQL."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import inf

import pytest

from refresher.domain.conclude import conclude
from refresher.domain.model import ChunkWrite, Park, Release, Sample, Write
from refresher.domain.pacing import APP_HORIZON_SECONDS, HORIZON_SECONDS, PAST_SECONDS, Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.claims import RESERVE, ROWS_READ
from refresher.postgres.database import connected
from refresher.postgres.leases import EXTEND
from refresher.postgres.statements import Statement, source
from refresher.postgres.write_back import write_back


def replica(pool, name="a", *, per_token=600, per_app=0, lease=60.0):
    return Accounts(
        pool,
        replica=name,
        pace=Pace(per_token, per_app, lease_seconds=lease),
    )


async def store(pool, open_id, videos, *, due_in=None):
    """An account and its videos, due now or one a second from `due_in` seconds on."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token) VALUES ($1, 'act.x')"
        " ON CONFLICT DO NOTHING",
        open_id,
    )
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, due_at)"
        " SELECT $1, $1 || n, now() + coalesce($3 + n, 0) * interval '1 second'"
        " FROM generate_series(1, $2::integer) AS n",
        open_id,
        videos,
        due_in,
    )


async def account(pool, open_id):
    return await pool.fetchrow(
        "SELECT *, now() AS now FROM refresher.accounts WHERE open_id = $1", open_id
    )


def ids(claim):
    return [video.video_id for video in claim.videos]


def slots(claim):
    count = -(-len(claim.videos) // 20)
    step = timedelta(seconds=claim.step_seconds)
    return [claim.first_slot + n * step for n in range(count)]


async def test_due_videos_are_claimed_under_a_lease(pool):
    """A claim carries the account's token, its due videos and a lease on the database's clock."""
    await store(pool, "ana", 3)
    (claim,) = await replica(pool).claim(10)
    row = await account(pool, "ana")
    assert (claim.open_id, claim.access_token) == ("ana", "act.x")
    assert claim.lease_epoch == row["lease_epoch"]
    assert sorted(ids(claim)) == ["ana1", "ana2", "ana3"]
    assert row["lease_owner"] == "a"
    assert row["lease_expires_at"] == row["wake_at"] == claim.lease_expires_at > row["now"]
    assert "act.x" not in repr(claim)


async def test_a_partly_full_chunk_is_topped_up_with_the_next_due(pool):
    """Five due videos bring the fifteen that would be due next, and no more."""
    await store(pool, "ana", 30, due_in=100)
    await pool.execute(
        "INSERT INTO refresher.videos SELECT 'ana', 'new' || n FROM generate_series(1, 5) AS n"
    )
    (claim,) = await replica(pool).claim(10)
    assert sorted(ids(claim)[:5]) == [f"new{n}" for n in range(1, 6)]
    assert ids(claim)[5:] == [f"ana{n}" for n in range(1, 16)]


async def test_nobody_claims_what_is_leased_until_the_lease_ends(pool):
    """A second replica finds nothing; after the lease it finds the same videos, one epoch on."""
    await store(pool, "ana", 3)
    (first,) = await replica(pool, "a").claim(10)
    assert await replica(pool, "b").claim(10) == []
    await pool.execute("UPDATE refresher.accounts SET lease_expires_at = now(), wake_at = now()")
    (claim,) = await replica(pool, "b").claim(10)
    assert (len(claim.videos), claim.lease_epoch) == (3, first.lease_epoch + 1)


async def test_concurrent_claims_share_no_account(pool):
    """Many claims at once lease every account exactly once."""
    for n in range(30):
        await store(pool, f"account-{n}", 1)
    answers = await asyncio.gather(*(replica(pool, str(n)).claim(10) for n in range(6)))
    leased = [claim.open_id for claims in answers for claim in claims]
    assert len(leased) == len(set(leased)) == 30


@pytest.mark.parametrize("state", ["paused", "needs_reauthorization", "needs_scope"])
async def test_parked_accounts_are_not_claimed(pool, state):
    """Only an active account is worked."""
    await store(pool, "ana", 3)
    await pool.execute("UPDATE refresher.accounts SET state = $1", state)
    assert await replica(pool).claim(10) == []


async def test_the_longest_waiting_come_first_within_the_budget(pool):
    """The budget counts chunks; an account that is cut short keeps the rest for its next claim."""
    await store(pool, "late", 60)
    await store(pool, "later", 60)
    await pool.execute(
        "UPDATE refresher.accounts SET wake_at = now() - interval '1 minute' WHERE open_id = 'late'"
    )
    first, second = await replica(pool).claim(4)
    assert (first.open_id, len(first.videos)) == ("late", 60)
    assert (second.open_id, len(second.videos)) == ("later", 20)


async def test_a_huge_account_takes_no_more_than_the_horizon(pool):
    """At 600 a minute a claim takes the chunks of the next seconds, however many are due."""
    await store(pool, "huge", 5000)
    (claim,) = await replica(pool).claim(1000)
    assert len(claim.videos) % 20 == 0
    assert slots(claim)[-1] - claim.first_slot <= timedelta(seconds=HORIZON_SECONDS)


async def test_slots_continue_where_the_last_claim_ended(pool):
    """Whoever claims next, no two slots of an account are closer than the limit allows."""
    await store(pool, "ana", 2000)
    reserved = []
    for name in "abc":
        (claim,) = await replica(pool, name, per_token=60).claim(100)
        reserved += slots(claim)
        await pool.execute(
            "UPDATE refresher.accounts SET lease_expires_at = now(), wake_at = now(),"
            " next_slot_at = next_slot_at - interval '3 seconds'"
        )
        reserved = [slot - timedelta(seconds=3) for slot in reserved]
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in pairwise(reserved))


async def test_a_paused_account_waits_even_for_new_videos(pool):
    """After a 429 the pause is in the row: a new video wakes the account, but no slot comes."""
    await store(pool, "ana", 1)
    (claim,) = await replica(pool).claim(10)
    await replica(pool).release([Release("ana", claim.lease_epoch, failures=1, pause_seconds=30)])
    await store(pool, "ana", 0)
    await pool.execute("INSERT INTO refresher.videos VALUES ('ana', 'new')")
    assert await replica(pool, "b").claim(10) == []


async def test_the_app_limit_is_shared_by_all_accounts_and_replicas(pool):
    """With 600 a minute for the app, slots of all accounts together keep their distance."""
    for n in range(40):
        await store(pool, f"account-{n}", 40)
    claims = [
        claim
        for name in "abc"
        for claim in await replica(pool, name, per_token=0, per_app=600).claim(100)
    ]
    taken = sorted(slot for claim in claims for slot in slots(claim))
    reach = timedelta(seconds=2 * APP_HORIZON_SECONDS)
    assert 5 <= len(taken) <= 15
    assert taken[-1] - datetime.now(UTC) <= reach
    assert len(taken) <= (taken[-1] - taken[0] + reach).total_seconds() * 10


async def test_an_account_with_nothing_due_is_claimed_for_its_wake_up_only(pool):
    """No videos, no slot spent; its release sets the wake-up to its earliest due video."""
    await store(pool, "ana", 1, due_in=1000)
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    (claim,) = await replica(pool).claim(10)
    assert not claim.videos
    (released,) = await replica(pool).release([Release("ana", claim.lease_epoch)])
    assert 990 < released.wake_in_seconds < 1010
    assert await pool.fetchval("SELECT next_slot_at < now() FROM refresher.accounts")


async def test_a_release_counts_the_videos_and_sets_the_wake_up(pool):
    """Counts, earliest due time and validity are stored with the account."""
    await store(pool, "ana", 1)
    await store(pool, "ana", 0)
    await pool.execute("""
        INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, gone_at, due_at)
        VALUES ('ana', 'valid', 'https://c', now() + interval '1 hour', NULL, now() + interval '30 min'),
               ('ana', 'dead', 'https://c', now() - interval '1 hour', NULL, now() + interval '40 min'),
               ('ana', 'gone', NULL, NULL, now(), now() + interval '1 day')
    """)
    (claim,) = await replica(pool).claim(10)
    await pool.execute(
        "UPDATE refresher.videos SET due_at = now() + interval '50 min' WHERE video_id = 'ana1'"
    )
    (released,) = await replica(pool).release([Release("ana", claim.lease_epoch)])
    row = await account(pool, "ana")
    assert 1790 < released.wake_in_seconds <= 1800
    assert (row["videos"], row["valid"], row["expired"], row["unreachable"]) == (4, 1, 1, 1)
    assert row["lease_owner"] is row["lease_expires_at"] is None


async def test_an_account_without_videos_does_not_wake(pool):
    """Nothing to ask for: it sleeps until a video is inserted."""
    await store(pool, "ana", 0)
    (claim,) = await replica(pool).claim(10)
    (released,) = await replica(pool).release([Release("ana", claim.lease_epoch)])
    assert released.wake_in_seconds == inf
    await pool.execute("INSERT INTO refresher.videos VALUES ('ana', 'new')")
    (claim,) = await replica(pool).claim(10)
    assert ids(claim) == ["new"]


async def test_videos_inserted_during_a_lease_keep_their_wake_up(pool):
    """A release that finds wake_at lowered in the meantime keeps the lower value."""
    await store(pool, "ana", 1, due_in=1000)
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    (claim,) = await replica(pool).claim(10)
    await pool.execute("UPDATE refresher.accounts SET wake_at = now() - interval '1 second'")
    (released,) = await replica(pool).release([Release("ana", claim.lease_epoch)])
    assert released.wake_in_seconds <= 0


async def test_an_uncommitted_insert_is_waited_for(pool):
    """While an application's insert is open the account is not claimed, so no wake-up is missed."""
    await store(pool, "ana", 1, due_in=1000)
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    async with pool.acquire() as application, application.transaction():
        await application.execute("INSERT INTO refresher.videos VALUES ('ana', 'new')")
        assert await replica(pool).claim(10) == []
    (claim,) = await replica(pool).claim(10)
    assert ids(claim) == ["new", "ana1"]


async def test_a_locked_row_is_given_back_later(pool):
    """A release leaves out an account whose row an application holds, instead of waiting."""
    await store(pool, "ana", 1)
    await store(pool, "ben", 1)
    claims = await replica(pool).claim(10)
    releases = [Release(claim.open_id, claim.lease_epoch) for claim in claims]
    async with pool.acquire() as application, application.transaction():
        await application.execute("SELECT FROM refresher.accounts WHERE open_id = 'ana' FOR UPDATE")
        released = await replica(pool).release(releases)
    by_account = dict(zip([claim.open_id for claim in claims], released, strict=True))
    assert by_account["ana"] is None
    assert by_account["ben"] is not None


async def test_a_stale_lease_releases_nothing(pool):
    """A replica that lost its lease changes nothing of the new holder's."""
    await store(pool, "ana", 1)
    (old,) = await replica(pool, "a").claim(10)
    await pool.execute("UPDATE refresher.accounts SET lease_expires_at = now(), wake_at = now()")
    await replica(pool, "b").claim(10)
    before = await account(pool, "ana")
    assert await replica(pool, "a").release([Release("ana", old.lease_epoch, failures=9)]) == [None]
    after = await account(pool, "ana")
    assert dict(before) | {"now": 0} == dict(after) | {"now": 0}


async def test_a_back_off_delays_the_next_claim(pool):
    """Failures and back-off are in the row, for all replicas to see."""
    await store(pool, "ana", 1)
    (claim,) = await replica(pool).claim(10)
    (released,) = await replica(pool).release(
        [Release("ana", claim.lease_epoch, claim.token.generation, 3, 40)]
    )
    assert 39 < released.wake_in_seconds <= 40
    assert (await account(pool, "ana"))["failures"] == 3
    assert await replica(pool, "b").claim(10) == []


async def test_a_refused_token_parks_until_it_is_replaced(pool):
    """Parked with its reason; a plain UPDATE of the token makes it active again, at once due."""
    await store(pool, "ana", 1)
    (claim,) = await replica(pool).claim(10)
    park = Park("needs_reauthorization", "access_token_invalid")
    (released,) = await replica(pool).release(
        [
            Release(
                "ana",
                claim.lease_epoch,
                claim.token.generation,
                failures=1,
                retry_seconds=30,
                park=park,
            )
        ]
    )
    row = await account(pool, "ana")
    assert released.parked
    assert (row["state"], row["state_reason"]) == ("needs_reauthorization", "access_token_invalid")
    assert await replica(pool).claim(10) == []
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.y'")
    row = await account(pool, "ana")
    assert (row["state"], row["state_reason"], row["failures"]) == ("active", None, 0)
    assert len(await replica(pool).claim(10)) == 1


async def test_a_token_replaced_meanwhile_is_not_parked(pool):
    """The refusal was of the old token; the new one gets its chance."""
    await store(pool, "ana", 1)
    (claim,) = await replica(pool).claim(10)
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.y'")
    park = Park("needs_reauthorization", "access_token_invalid")
    (released,) = await replica(pool).release(
        [Release("ana", claim.lease_epoch, claim.token.generation, failures=1, park=park)]
    )
    assert not released.parked
    assert (await account(pool, "ana"))["state"] == "active"


async def test_the_daemons_own_writes_revive_nobody(pool):
    """Only a changed credential ends a park: the same token written again does not."""
    await store(pool, "ana", 1)
    await pool.execute("UPDATE refresher.accounts SET state = 'needs_scope'")
    await pool.execute("UPDATE refresher.accounts SET access_token = access_token")
    assert (await account(pool, "ana"))["state"] == "needs_scope"
    await pool.execute("UPDATE refresher.accounts SET state = 'paused', access_token = 'act.y'")
    assert (await account(pool, "ana"))["state"] == "paused"


async def test_requests_are_counted_from_the_full_hour(pool):
    """What was sent is in the row: added up within the hour, a new hour from nothing."""
    await store(pool, "ana", 60)
    for sent, counted in ((3, 3), (2, 5)):
        await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
        (claim,) = await replica(pool).claim(10)
        await replica(pool).release([Release("ana", claim.lease_epoch, requests=sent)])
        assert (await account(pool, "ana"))["requests"] == counted
    await pool.execute(
        "UPDATE refresher.accounts"
        " SET wake_at = now(), requests_since = requests_since - interval '1 hour'"
    )
    (claim,) = await replica(pool).claim(10)
    await replica(pool).release([Release("ana", claim.lease_epoch, requests=1)])
    assert (await account(pool, "ana"))["requests"] == 1


async def test_a_video_that_brought_no_cover_is_no_top_up(pool):
    """It might spoil the request of the others; due, it is asked for all the same."""
    await store(pool, "ana", 4, due_in=100)
    await pool.execute("UPDATE refresher.videos SET misses = 1 WHERE video_id IN ('ana1', 'ana2')")
    await pool.execute(
        "UPDATE refresher.videos SET due_at = now() WHERE video_id IN ('ana2', 'ana3')"
    )
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    (claim,) = await replica(pool).claim(10)
    assert sorted(ids(claim)) == ["ana2", "ana3", "ana4"]
    assert {video.video_id: video.due for video in claim.videos} == {
        "ana2": True,
        "ana3": True,
        "ana4": False,
    }


async def test_slots_begin_after_the_claim_however_slow(pool):
    """A claim that had to wait brings slots that can still be kept."""
    await store(pool, "ana", 20)
    async with pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT FROM refresher.app FOR UPDATE")
        claiming = asyncio.create_task(replica(pool, per_app=600).claim(10))
        await asyncio.sleep(1)
        released_at = await other.fetchval("SELECT clock_timestamp()")
        await transaction.rollback()
    (claim,) = await claiming
    assert claim.first_slot >= released_at - timedelta(seconds=PAST_SECONDS)


async def test_a_claim_reads_only_what_it_can_use(pool):
    """By the stored counts, huge accounts are left to the next claim rather than read in vain."""
    for name in ("ana", "ben", "cid"):
        await store(pool, name, 1)
    await pool.execute("UPDATE refresher.accounts SET videos = $1", 3 * ROWS_READ // 4)
    assert len(await replica(pool).claim(100)) == 2
    assert len(await replica(pool).claim(100)) == 1


@pytest.mark.parametrize(
    ("sizes", "claims"),
    [
        pytest.param([751, 751], [1, 1], id="two-of-middling-size"),
        pytest.param([100, 1000], [2], id="a-large-one-after-a-small"),
        pytest.param([501, 1000], [1, 1], id="a-large-one-after-another"),
        pytest.param([1000, 100], [1, 1], id="a-large-one-first"),
    ],
)
async def test_a_claim_reads_little_more_than_of_one_account(pool, sizes, claims):
    """The slowest claims would be those that come to a large account after others."""
    for number, videos in enumerate(sizes):
        await store(pool, f"account-{number}", 1)
        await pool.execute(
            "UPDATE refresher.accounts SET videos = $1, wake_at = $2 WHERE open_id = $3",
            videos,
            datetime(2026, 1, 1 + number, tzinfo=UTC),
            f"account-{number}",
        )
    assert [len(await replica(pool).claim(100)) for _ in claims] == claims


def read_at_most(monkeypatch, rows):
    """Claims read so many videos of an account, and releases know it."""
    for module in ("claims", "leases"):
        monkeypatch.setattr(f"refresher.postgres.{module}.ROWS_READ", rows)


async def test_a_large_account_is_read_in_parts(pool, monkeypatch):
    """Each claim reads on where the last one stopped; what is due in all parts is asked for once."""
    read_at_most(monkeypatch, 50)
    await store(pool, "ana", 130)
    await pool.execute("UPDATE refresher.accounts SET videos = 130")
    asked, read_to = [], []
    for _ in range(4):
        (claim,) = await replica(pool, per_token=0).claim(10)
        asked += ids(claim)
        read_to.append((await account(pool, "ana"))["read_to"])
        assert claim.unfinished == (len(read_to) < 3)
        await pool.execute(
            "UPDATE refresher.videos SET due_at = now() + interval '1 hour'"
            " WHERE video_id = ANY ($1)",
            ids(claim),
        )
        (released,) = await replica(pool).release(
            [Release("ana", claim.lease_epoch, unfinished=claim.unfinished)]
        )
        if not claim.unfinished:
            break
        assert released.wake_in_seconds <= 0
    assert (len(asked), len(set(asked))) == (130, 130)
    assert read_to[0] < read_to[1]
    assert read_to[2:] == [""]
    assert 3500 < released.wake_in_seconds <= 3600


async def test_a_part_with_nothing_due_costs_no_turn(pool, monkeypatch):
    """The account's next part is read before those of others that have been due for long."""
    read_at_most(monkeypatch, 50)
    await store(pool, "ana", 130)
    await pool.execute(
        "UPDATE refresher.videos SET due_at = now() + interval '1 hour' WHERE video_id < 'ana9'"
    )
    await pool.execute("UPDATE refresher.accounts SET videos = 130")
    claims = []
    for _ in range(3):
        (claim,) = await replica(pool).claim(1)
        claims.append(claim)
        await replica(pool).release([conclude(claim, [], 0.5)])
        if len(claims) == 1:
            await store(pool, "ben", 1)
            await pool.execute(
                "UPDATE refresher.accounts SET wake_at = now() - interval '1 hour'"
                " WHERE open_id = 'ben'"
            )
    assert [claim.open_id for claim in claims] == ["ana", "ana", "ana"]
    assert [len(claim.videos) for claim in claims] == [0, 0, 20]


async def test_an_account_in_work_goes_on_in_the_slots_that_just_passed(pool):
    """One that was idle begins now, so that its chunks are not late before they are sent."""
    await store(pool, "ana", 40)
    (claim,) = await replica(pool).claim(1)
    assert claim.first_slot >= claim.time.now
    await replica(pool).release([Release("ana", claim.lease_epoch)])
    passed = await pool.fetchval(
        "UPDATE refresher.accounts SET next_slot_at = now() - interval '0.1 seconds'"
        " RETURNING next_slot_at"
    )
    (claim,) = await replica(pool).claim(1)
    assert claim.first_slot == passed
    await replica(pool).release([Release("ana", claim.lease_epoch)])
    await pool.execute("UPDATE refresher.accounts SET next_slot_at = now() - interval '1 second'")
    (claim,) = await replica(pool).claim(1)
    assert claim.first_slot >= claim.time.now


async def test_a_claim_tells_where_each_row_lies(pool):
    """Due ones and top-ups, as far as they are asked for: a write-back looks for them there."""
    await store(pool, "ana", 50)
    await pool.execute(
        "UPDATE refresher.videos SET due_at = now() + interval '1 hour' WHERE video_id >= 'ana4'"
    )
    (claim,) = await replica(pool).claim(2)
    rows = await pool.fetch(
        "SELECT video_id, ctid::text FROM refresher.videos WHERE video_id = ANY($1)", ids(claim)
    )
    assert claim.ctids == dict(rows)
    assert [*claim.ctids] == ids(claim)
    assert len(claim.ctids) == 40


async def test_a_part_is_read_again_while_more_is_due_in_it(pool, monkeypatch):
    """A claim that asks for less than is due, for want of budget, leaves the rest to the next."""
    read_at_most(monkeypatch, 50)
    await store(pool, "ana", 130)
    (claim,) = await replica(pool).claim(2)
    assert (len(claim.videos), claim.unfinished) == (40, True)
    assert (await account(pool, "ana"))["read_to"] == ""


async def test_a_large_account_is_counted_when_all_of_it_was_read(pool, monkeypatch):
    """Not with every part: the counts of the last time stand, and it is awake at once."""
    read_at_most(monkeypatch, 50)
    await store(pool, "ana", 130)
    for counted, unfinished in ((130, True), (130, True), (129, False)):
        (claim,) = await replica(pool).claim(1)
        await replica(pool).release([Release("ana", claim.lease_epoch, unfinished=unfinished)])
        assert (await account(pool, "ana"))["videos"] == counted
        await pool.execute("DELETE FROM refresher.videos WHERE video_id = 'ana7'")


async def refresh(pool, claim):
    """All that was asked for gets a cover; the samples of it, as the flow makes them."""
    now = claim.time.now
    videos = ids(claim)
    new = [
        Write(part, now + timedelta(hours=1), now + timedelta(hours=2), ["https://c"] * len(part))
        for part in (videos[start : start + 20] for start in range(0, len(videos), 20))
    ]
    await write_back(pool, [ChunkWrite(claim.open_id, claim.lease_epoch, new, claim.ctids)])
    return [Sample(write.video_ids[0], len(write.video_ids)) for write in new]


async def tries_beside_others(pool):
    """A claim is unsure, too, where another database of the server is written to at that moment."""
    for _ in range(20):
        yield
        await pool.execute(
            "UPDATE refresher.accounts SET lease_owner = NULL, lease_expires_at = NULL,"
            " next_slot_at = '-infinity', wake_at = '-infinity'"
        )


async def test_an_account_that_is_wholly_refreshed_is_not_counted(pool):
    """A video of each write says how the others are: one that is deleted meanwhile is not missed."""
    await store(pool, "ana", 30)
    async for _ in tries_beside_others(pool):
        (claim,) = await replica(pool).claim(10)
        if claim.all_videos is not None:
            break
    assert claim.all_videos == 30
    release = conclude(claim, [], 0.5, samples=await refresh(pool, claim))
    await pool.execute("DELETE FROM refresher.videos WHERE video_id = $1", ids(claim)[-1])
    (released,) = await replica(pool).release([release])
    row = await account(pool, "ana")
    assert (row["videos"], row["valid"], row["expired"], row["unreachable"]) == (30, 30, 0, 0)
    assert row["valid_until"] == claim.time.now + timedelta(hours=2)
    assert row["earliest_due_at"] == row["wake_at"] == claim.time.now + timedelta(hours=1)
    assert 3500 < released.wake_in_seconds <= 3600


LOST = """
UPDATE refresher.videos SET cover_image_url = NULL, cover_expires_at = NULL, due_at = '-infinity'
WHERE video_id = ANY ($1)
"""
DELETED = "DELETE FROM refresher.videos WHERE video_id = ANY ($1)"
DUE = "UPDATE refresher.videos SET due_at = now() WHERE video_id = ANY ($1)"
DEAD = "UPDATE refresher.videos SET cover_expires_at = now() WHERE video_id = ANY ($1)"


@pytest.mark.parametrize(
    ("change", "counts"),
    [(LOST, (30, 10, 0)), (DELETED, (10, 10, 0)), (DUE, (30, 30, 0)), (DEAD, (30, 10, 20))],
    ids=["lost", "deleted", "due", "dead"],
)
async def test_what_was_written_and_is_not_there_is_seen(pool, change, counts):
    """As after a failover that has lost a write-back: the whole account is counted, and awake."""
    await store(pool, "ana", 30)
    (claim,) = await replica(pool).claim(10)
    release = conclude(claim, [], 0.5, samples=await refresh(pool, claim))
    await pool.execute(change, ids(claim)[:20])
    await replica(pool).release([release])
    row = await account(pool, "ana")
    assert (row["videos"], row["valid"], row["expired"]) == counts
    assert (row["wake_at"] <= row["now"]) == (change != DELETED)


async def test_a_claim_of_a_part_has_not_seen_all(pool, monkeypatch):
    """Neither the first part of an account nor its last."""
    read_at_most(monkeypatch, 20)
    await store(pool, "ana", 30)
    for _ in range(2):
        (claim,) = await replica(pool).claim(1)
        assert claim.all_videos is None
        release = conclude(claim, [], 0.5, samples=await refresh(pool, claim))
        assert release.samples == ()
        await replica(pool).release([release])
    assert (await account(pool, "ana"))["valid"] == 30


@pytest.fixture
async def late_to_lock(pool, monkeypatch):
    """Claims that, between their snapshot and their first lock, wait for this connection."""
    look = "FROM refresher.app LIMIT 1"
    claim = source("claim")
    assert claim.count(look) == 1
    waiting = claim.replace(look, "FROM refresher.app, pg_advisory_xact_lock(7) LIMIT 1")
    monkeypatch.setattr("refresher.postgres.claims.CLAIM", Statement(waiting))
    async with pool.acquire() as holder:
        await holder.execute("SELECT pg_advisory_lock(7)")
        yield holder
        await holder.execute("SELECT pg_advisory_unlock_all()")


@pytest.mark.parametrize("unseen", [0, 1])
async def test_a_claim_knows_that_it_may_not_have_seen_the_last_insert(pool, late_to_lock, unseen):
    """Its account is counted, and is awake for the video that came before the lock."""
    await store(pool, "ana", 30)
    async for _ in tries_beside_others(pool):
        claiming = asyncio.create_task(replica(pool).claim(10))
        while not await late_to_lock.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event = 'advisory'"
        ):
            assert not claiming.done()
        if unseen:
            await late_to_lock.execute("INSERT INTO refresher.videos VALUES ('ana', 'last')")
        await late_to_lock.execute("SELECT pg_advisory_unlock(7)")
        (claim,) = await claiming
        if unseen or claim.all_videos is not None:
            break
        await late_to_lock.execute("SELECT pg_advisory_lock(7)")
    assert (len(claim.videos), claim.all_videos) == (30, None if unseen else 30)
    release = conclude(claim, [], 0.5, samples=await refresh(pool, claim))
    await replica(pool).release([release])
    row = await account(pool, "ana")
    assert row["videos"] == 30 + unseen
    assert (row["wake_at"] <= row["now"]) == bool(unseen)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_above_read_committed_no_claim_is_sure(database, pool, isolation):
    """There a look at what has ended meanwhile shows only what the claim itself sees."""
    await store(pool, "ana", 30)
    name = await pool.fetchval("SELECT current_database()")
    await pool.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")
    async with connected(database, application_name="strict") as strict:
        (claim,) = await replica(strict).claim(10)
    assert (len(claim.videos), claim.all_videos) == (30, None)


async def test_inserting_videos_takes_no_right_to_write_accounts(pool):
    """An application's role that may only insert videos still wakes their account."""
    await store(pool, "ana", 1, due_in=1000)
    await pool.execute("UPDATE refresher.accounts SET wake_at = 'infinity'")
    role = f"application_{secrets.token_hex(4)}"
    await pool.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA refresher TO {role};"
        f"GRANT INSERT ON refresher.videos TO {role}"
    )
    try:
        async with pool.acquire() as application:
            await application.execute(f"SET ROLE {role}")
            await application.execute("INSERT INTO refresher.videos VALUES ('ana', 'new')")
            await application.execute("RESET ROLE")
    finally:
        await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert len(await replica(pool).claim(10)) == 1


async def test_videos_imported_for_later_during_a_lease_are_not_forgotten(pool):
    """Even if the release did not see them yet, the account wakes by the end of the lease."""
    await store(pool, "ana", 1)
    (claim,) = await replica(pool, lease=60).claim(10)
    await store(pool, "ana", 0)
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, due_at)"
        " VALUES ('ana', 'later', now() + interval '1 hour')"
    )
    row = await account(pool, "ana")
    assert row["wake_at"] < row["lease_expires_at"]
    assert claim.lease_expires_at == row["lease_expires_at"]


async def test_a_release_said_twice_counts_once(pool):
    """Its commit was not heard of: said again, it is answered alike and changes nothing."""
    await store(pool, "ana", 1)
    (claim,) = await replica(pool).claim(10)
    release = Release("ana", claim.lease_epoch, pause_seconds=5, token_retry_seconds=5, requests=3)
    (first,) = await replica(pool).release([release])
    row = await account(pool, "ana")
    (second,) = await replica(pool).release([release])
    again = await account(pool, "ana")
    assert {**again, "now": None} == {**row, "now": None}
    assert (first.parked, second.parked) == (False, False)
    assert 0 < second.wake_in_seconds <= first.wake_in_seconds


async def test_a_slow_limit_of_the_app_lets_one_claim_at_a_time_through(pool):
    """The app's next slot lies ahead by its whole step: the next account gets just that."""
    for name in ("ana", "ben", "cid"):
        await store(pool, name, 1)
    claimed = [await replica(pool, per_app=30).claim(64) for _ in range(3)]
    assert [len(claims) for claims in claimed] == [1, 1, 0]


async def test_a_lease_is_extended_beside_a_write_back(pool):
    """Neither this nor a further slot makes the write-back skip the account."""
    await store(pool, "ana", 1)
    claims = replica(pool)
    (claim,) = await claims.claim(10)
    extending = EXTEND(
        open_ids=[claim.open_id], lease_epochs=[claim.lease_epoch], lease=timedelta(seconds=60)
    )
    reserving = RESERVE(
        open_id=claim.open_id,
        lease_epoch=claim.lease_epoch,
        step=timedelta(seconds=1),
        app_step=timedelta(0),
        ahead=timedelta(0),
    )
    for misses, asked in enumerate((extending, reserving), 1):
        async with pool.acquire() as other, other.transaction():
            assert await other.fetch(*asked)
            due_at = claim.lease_expires_at + timedelta(seconds=misses)
            write = Write(ids(claim), due_at, misses=misses)
            chunk = ChunkWrite(claim.open_id, claim.lease_epoch, [write], claim.ctids)
            assert await write_back(pool, [chunk]) == [1]
    (left,) = await claims.extend([claim])
    assert 59 < left <= 60


async def test_a_lost_lease_is_not_extended_and_brings_no_slot(pool):
    """The epoch has moved on: the account is another's."""
    await store(pool, "ana", 1)
    (old,) = await replica(pool, "a").claim(10)
    await pool.execute("UPDATE refresher.accounts SET lease_expires_at = now(), wake_at = now()")
    assert await replica(pool, "b").claim(10)
    assert await replica(pool, "a").extend([old]) == [None]
    assert await replica(pool, "a").reserve(old) is None


async def test_new_videos_do_not_cut_a_dead_tokens_back_off_short(pool):
    """Its refresh failed a moment ago: the account waits, however often it is woken."""
    await store(pool, "ana", 1)
    await pool.execute("UPDATE refresher.accounts SET refresh_token = 'rft.x'")
    await pool.execute("UPDATE refresher.accounts SET token_standing = 'refused'")
    claims = Accounts(
        pool,
        replica="a",
        pace=Pace(0, 0, lease_seconds=60),
        managed=True,
    )
    (claim,) = await claims.claim(10)
    assert (claim.token.due, ids(claim), claim.all_videos) == (True, [], None)
    release = Release(
        "ana",
        claim.lease_epoch,
        claim.token.generation,
        retry_seconds=30,
        token_retry_seconds=30,
    )
    await claims.release([release])
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', 'new')")
    assert await claims.claim(10) == []
