"""What operators are told, over real PostgreSQL."""

import pytest

from refresher.domain.model import Release
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.audit import audit_step
from refresher.postgres.status import read_leases, read_quota, read_summary

COVERS = """
INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, gone_at, due_at)
SELECT $1, kind || n,
       CASE WHEN kind <> 'new' THEN 'https://c' END,
       CASE kind WHEN 'valid' THEN now() + interval '1 hour'
                 WHEN 'dead' THEN now() - interval '1 minute'
                 WHEN 'gone' THEN now() - interval '1 day' END,
       CASE WHEN kind = 'gone' THEN now() END,
       CASE WHEN kind IN ('dead', 'new') THEN now() - interval '30 seconds'
            ELSE now() + interval '30 minutes' END
FROM unnest($2::text[]) AS kind, generate_series(1, 2) AS n
"""


async def store(pool, open_id, *kinds, state="active"):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, state) VALUES ($1, 'act.x', $2)",
        open_id,
        state,
    )
    await pool.execute(COVERS, open_id, kinds)


def replica(pool):
    return Accounts(
        pool,
        replica="a",
        pace=Pace(600, 0, lease_seconds=60),
    )


async def settle(pool):
    """Let every account be claimed and released once, so that its counts are stored."""
    claimed = []
    while claims := await replica(pool).claim(100):
        claimed += claims
    await replica(pool).release([Release(claim.open_id, claim.lease_epoch) for claim in claimed])


@pytest.mark.parametrize("settled", [False, True], ids=["fresh", "counted"])
async def test_the_summary_tells_what_could_have_been_kept_alive(pool, settled):
    """Expired are dead covers of working accounts; gone videos and parked accounts are apart."""
    await store(pool, "ana", "valid", "dead", "gone", "new")
    await store(pool, "ben", "valid", "dead", state="active")
    if settled:
        await settle(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET state = 'needs_reauthorization' WHERE open_id = 'ben'"
    )
    if not settled:
        await audit_step(pool)
    summary = await read_summary(pool)
    assert (summary.videos, summary.valid, summary.expired) == (12, 4, 2)
    assert (summary.unreachable, summary.due) == (4, 4)
    assert 29 < summary.oldest_overdue_seconds < 60
    assert summary.accounts == {
        "active": 1,
        "paused": 0,
        "needs_reauthorization": 1,
        "needs_scope": 0,
    }


async def test_a_summary_reads_no_more_than_it_may(pool, monkeypatch):
    """Of many accounts that are due, some are read and the others are taken to be like them."""
    monkeypatch.setattr("refresher.postgres.status.VIDEOS_READ", 100)
    monkeypatch.setattr("refresher.postgres.status.VIDEOS_SAMPLED", 80)
    for n in range(50):
        await store(pool, f"account-{n:02}", "valid", "dead")
    await settle(pool)
    await store(pool, "other", "valid")
    await settle(pool)
    await pool.execute("UPDATE refresher.accounts SET valid_until = now() WHERE open_id <> 'other'")
    summary = await read_summary(pool)
    assert (summary.videos, summary.valid, summary.expired, summary.due) == (202, 102, 100, 100)
    await pool.execute(
        "DELETE FROM refresher.videos WHERE open_id LIKE 'account%' AND video_id LIKE 'dead%'"
    )
    summary = await read_summary(pool)
    assert (summary.videos, summary.valid, summary.expired) == (102, 102, 0)
    assert summary.accounts["active"] == 51


async def test_a_summary_sees_every_kind_of_account(pool, monkeypatch):
    """However large one is: other states, accounts never counted, and the many small ones."""
    monkeypatch.setattr("refresher.postgres.status.VIDEOS_READ", 100)
    monkeypatch.setattr("refresher.postgres.status.VIDEOS_SAMPLED", 80)
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('huge'), ('parked')")
    await pool.execute(
        "INSERT INTO refresher.videos (open_id, video_id, cover_image_url, cover_expires_at, due_at)"
        " SELECT 'huge', n::text, 'https://c?x-expires=' ||"
        " extract(epoch FROM now() + interval '2 hours')::bigint, now() + interval '1 hour', now()"
        " FROM generate_series(1, 500) AS n UNION ALL"
        " SELECT 'parked', n::text, 'https://c', now(), now() FROM generate_series(1, 3) AS n"
    )
    for n in range(20):
        await store(pool, f"small-{n:02}", "dead")
    while await audit_step(pool) or await pool.fetchval(
        "SELECT audited_to <> '' FROM refresher.audit"
    ):
        pass
    await pool.execute(
        "UPDATE refresher.accounts SET state = 'needs_reauthorization' WHERE open_id = 'parked'"
    )
    await pool.execute("UPDATE refresher.accounts SET valid_until = now()")
    summary = await read_summary(pool)
    assert (summary.videos, summary.valid, summary.expired) == (543, 500, 40)
    assert (summary.unreachable, summary.accounts["needs_reauthorization"]) == (3, 1)
    await store(pool, "new", "new")
    summary = await read_summary(pool)
    assert summary.videos == 545
    assert summary.accounts["active"] == 22


async def test_covers_that_die_after_the_count_are_noticed(pool):
    """Stored counts hold only until the first of their covers dies."""
    await store(pool, "ana", "valid")
    await settle(pool)
    assert (await read_summary(pool)).valid == 2
    # As the daemon writes: an application's change would wake the account, and be looked into.
    await pool.execute(
        "UPDATE refresher.videos SET cover_expires_at = now(), refreshed_at = now(),"
        " due_at = due_at + interval '1 second'"
    )
    assert (await read_summary(pool)).valid == 2
    await pool.execute("UPDATE refresher.accounts SET valid_until = now()")
    summary = await read_summary(pool)
    assert (summary.valid, summary.expired) == (0, 2)


async def test_an_empty_database_is_fine(pool):
    """No accounts: zeros."""
    summary = await read_summary(pool)
    assert (summary.videos, summary.due, summary.oldest_overdue_seconds) == (0, 0, 0.0)


async def test_quota_and_leases_are_told(pool):
    """Requests granted this hour, and who holds how many accounts."""
    await store(pool, "ana", "new", "dead")
    await store(pool, "ben", "new")
    claims = await replica(pool).claim(10)
    assert await read_leases(pool) == {"a": 2}
    sent = {"ana": 3, "ben": 1}
    await replica(pool).release(
        [
            Release(claim.open_id, claim.lease_epoch, requests=sent[claim.open_id])
            for claim in claims
        ]
    )
    quota = await read_quota(pool)
    assert (quota.requests, quota.busiest) == (4, 3)


async def test_an_account_without_videos_disturbs_no_summary(pool):
    """As after accounts import and before videos import: awake, and nothing to ask for."""
    await store(pool, "ana")
    await store(pool, "ben", "dead")
    summary = await read_summary(pool)
    assert (summary.videos, summary.due) == (2, 2)
    assert 29 < summary.oldest_overdue_seconds < 60


async def test_the_audit_wakes_what_would_sleep_for_ever(pool):
    """Whatever went wrong with wake_at, the walk puts it right and says so."""
    await store(pool, "ana", "dead")
    await store(pool, "ben", "valid")
    await settle(pool)
    await pool.execute("UPDATE refresher.accounts SET wake_at = 'infinity' WHERE open_id = 'ana'")
    await pool.execute(
        "UPDATE refresher.accounts SET wake_at = now() + interval '3 hours' WHERE open_id = 'ben'"
    )
    mended = dict(await audit_step(pool))
    assert mended["ana"] is None
    assert 8000 < mended["ben"] < 9100
    claims = await replica(pool).claim(10)
    assert [claim.open_id for claim in claims] == ["ana"]


async def test_the_audit_leaves_back_off_and_leases_alone(pool):
    """A back-off is no drift, and a leased account gets its counts from its release."""
    await store(pool, "ana", "dead")
    await store(pool, "ben", "dead")
    await settle(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET wake_at = now() + interval '4 minutes' WHERE open_id = 'ana'"
    )
    await replica(pool).claim(10)
    before = await pool.fetch("SELECT * FROM refresher.accounts ORDER BY open_id")
    assert await audit_step(pool) == []
    assert await pool.fetch("SELECT * FROM refresher.accounts ORDER BY open_id") == before


async def test_an_audit_step_reads_no_more_videos_than_it_may(pool, monkeypatch):
    """By the counts of the last time; the next step goes on behind."""
    monkeypatch.setattr("refresher.postgres.audit.VIDEOS_READ", 5)
    for n in range(4):
        await store(pool, f"account-{n}", "valid", "dead")
    await pool.execute("UPDATE refresher.accounts SET videos = 3")
    for walked in (2, 4):
        await audit_step(pool)
        counted = await pool.fetchval("SELECT count(*) FROM refresher.accounts WHERE videos = 4")
        assert counted == walked


async def test_the_audit_walks_all_accounts_and_starts_again(pool):
    """Step by step through all of them, whoever takes the step; counts that drifted are mended."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, wake_at, videos)"
        " SELECT 'account-' || n, 'infinity', 7 FROM generate_series(1, 50) AS n"
    )
    for _ in range(3):
        await audit_step(pool)
    assert await pool.fetchval("SELECT sum(videos) FROM refresher.accounts") == 0
    await audit_step(pool)
    await pool.execute("UPDATE refresher.accounts SET videos = 7")
    for _ in range(3):
        await audit_step(pool)
    assert await pool.fetchval("SELECT sum(videos) FROM refresher.accounts") == 0
