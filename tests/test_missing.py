"""Videos that are left out of good answers: a number of their own, and nobody's fault."""

from time import monotonic

import pytest
from structlog.testing import capture_logs

from refresher.assembly import assembled
from refresher.domain.model import Release
from refresher.domain.pacing import Pace
from refresher.flow.work import Tally
from refresher.postgres.accounts import Accounts
from refresher.postgres.audit import audit_step
from refresher.postgres.status import read_summary
from refresher.settings import read_settings
from tests.conftest import eventually, until
from tests.test_previous_version import Of0001, Of0002

# One video of each kind there is: whether its cover lives, and what was answered for it last.
KINDS = """
INSERT INTO refresher.videos
    (open_id, video_id, cover_image_url, cover_expires_at, missing_since, gone_at, due_at)
SELECT $1, cover || ' ' || answer,
       CASE WHEN cover <> 'none' THEN 'https://c' END,
       CASE cover WHEN 'alive' THEN now() + interval '1 hour'
                  WHEN 'dead' THEN now() - interval '1 minute' END,
       CASE WHEN answer <> 'good' THEN now() END,
       CASE WHEN answer = 'gone' THEN now() END,
       now() + interval '30 minutes'
FROM unnest('{alive,dead,none,unknown}'::text[]) AS cover,
     unnest('{good,missing,gone}'::text[]) AS answer
"""
COUNTS = "videos", "valid", "expired", "uncovered", "missing", "unreachable"
STORED = f"SELECT {', '.join(COUNTS)} FROM refresher.accounts"
TOLD = (12, 3, 1, 2, 4, 3)


def counts(summary):
    return tuple(getattr(summary, name) for name in COUNTS)


def claims(pool):
    return Accounts(
        pool,
        replica="a",
        pace=Pace(600, 0, lease_seconds=60),
    )


async def store(pool):
    await pool.execute("INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'x')")
    await pool.execute(KINDS, "ana")


async def released(pool):
    (claim,) = await claims(pool).claim(10)
    await claims(pool).release([Release("ana", claim.lease_epoch)])


@pytest.mark.parametrize("settle", [released, audit_step], ids=["released", "audited"])
async def test_every_video_is_counted_as_what_it_is(pool, settle):
    """Looked into or as stored: with what is missing and dead, the numbers add up to all videos."""
    await store(pool)
    assert counts(await read_summary(pool)) == TOLD
    await settle(pool)
    assert tuple(await pool.fetchrow(STORED)) == TOLD
    await pool.execute("UPDATE refresher.accounts SET wake_at = now() + interval '1 minute'")
    assert counts(await read_summary(pool)) == TOLD
    dead_and_missing = 3  # a dead cover, none, and one of unknown age
    assert sum(TOLD[1:4]) + TOLD[5] + dead_and_missing == TOLD[0]


async def test_of_a_parked_account_nothing_is_expired(pool):
    """Whatever is not alive is unreachable; what was left out of an answer still is missing."""
    await store(pool)
    await released(pool)
    await pool.execute("UPDATE refresher.accounts SET state = 'paused'")
    assert counts(await read_summary(pool)) == (12, 3, 0, 0, 4, 9)


@pytest.mark.parametrize("previous", [Of0001, Of0002], ids=["0001", "0002"])
async def test_what_a_previous_version_counts_is_no_nonsense(pool, previous):
    """It leaves two numbers as they were: they are told as far as the others leave room."""
    await store(pool)
    replica = previous(pool)
    (claim,) = await replica.claim()
    await replica.release(claim)
    assert tuple(await pool.fetchrow(STORED)) == (12, 3, 1, None, 0, 3)
    # Never counted by this version: what is missing without a living cover looks uncovered.
    assert counts(await read_summary(pool)) == (12, 3, 1, 5, 0, 3)
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    await released(pool)
    assert tuple(await pool.fetchrow(STORED)) == TOLD
    await pool.execute("DELETE FROM refresher.videos WHERE video_id NOT LIKE 'alive good'")
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    (claim,) = await replica.claim()
    await replica.release(claim)
    assert tuple(await pool.fetchrow(STORED)) == (1, 1, 0, 2, 4, 0)
    assert counts(await read_summary(pool)) == (1, 1, 0, 0, 1, 0)
    await audit_step(pool)
    assert tuple(await pool.fetchrow(STORED)) == (1, 1, 0, 0, 0, 0)


async def test_the_same_numbers_for_replicas_of_every_version(pool):
    """What they share is counted alike, or each would write the other's numbers over for ever."""
    await store(pool)
    old = await pool.fetchrow("SELECT * FROM refresher.count_covers('ana')")
    new = await pool.fetchrow("SELECT * FROM refresher.count_videos('ana', NULL)")
    assert dict(old) == {name: new[name] for name in old.keys()}  # noqa: SIM118 - a Record's


async def test_deleted_upstream_they_page_nobody(serve, start, pool):
    """A daemon's fifty videos, gone from TikTok: missing at once, never expired, freshness 100 %."""
    world = await serve(cover_ttl=9)
    ids = await world.add_account("ana", 60)
    await start(world)
    await world.until_valid(60)
    for video_id in ids[10:]:
        world.emulator.remove_video("ana", video_id)
    seen = []

    async def only_the_others_live():
        seen.append(await read_summary(pool))
        return seen[-1].valid == 10 and seen[-1].missing == 50

    await eventually(only_the_others_live, "the covers of what is missing are dead")
    end = monotonic() + 3
    while monotonic() < end:
        seen.append(await read_summary(pool))
        await until(monotonic() + 0.1)
    assert {summary.expired for summary in seen} == {0}
    missing = [summary.missing for summary in seen]
    assert missing == sorted(missing)
    # Told as missing while their covers still lived, all of them.
    assert any(summary.valid == 60 and summary.missing == 50 for summary in seen)
    status = await start(world, "status")
    assert await status.ended() == 0
    lines = dict(line.split()[:2] for line in status.output.read_text().splitlines())
    assert (lines["freshness"], lines["missing"], lines["expired"]) == ("100.00%", "50", "0")


async def test_a_summary_tells_both(pool, database):
    """How many are missing now, and how often this replica's answers have left one out."""
    await store(pool)
    settings = read_settings(database_url=database, tiktok_base_url="http://127.0.0.1:9")
    async with assembled(settings, "a") as app:
        app.upkeep.tally = lambda: Tally(missing=70)
        with capture_logs() as logs:
            await app.upkeep.summarize()
    (summary,) = [line for line in logs if line["event"] == "freshness.summarized"]
    assert (summary["missing"], summary["left_out"]) == (4, 70)
