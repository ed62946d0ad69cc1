"""What the status page reads beside the snapshot, over real PostgreSQL."""

import pytest

from refresher.domain.model import Release
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from refresher.postgres.details import Wanted, list_troubled, read_details
from refresher.postgres.explain import read_facts
from refresher.postgres.listing import list_accounts
from refresher.postgres.vitals import read_troubles
from tests.test_status import replica, settle, store

PACE = Pace(600, 0, lease_seconds=60)


async def change(pool, open_id, assignments):
    await pool.execute(f"UPDATE refresher.accounts SET {assignments} WHERE open_id = $1", open_id)


async def read(pool, pace=PACE, *, managed=True):
    return await read_details(pool, pace, managed=managed)


async def test_covers_are_counted_by_when_they_expire(pool):
    """Each account at the expiry of its first cover; parked accounts apart."""
    for open_id in ("ana", "ben", "cleo", "dora", "emil"):
        await store(pool, open_id, "valid")
    await settle(pool)
    await change(pool, "ana", "valid_until = now() - interval '1 second'")
    await change(pool, "ben", "valid_until = now() + interval '30 seconds'")
    await change(pool, "cleo", "valid_until = now() + interval '2 days'")
    await change(pool, "dora", "state = 'needs_scope'")
    details = await read(pool)
    # The times of `emil` are an hour ahead when they are stored, and a bit less now.
    assert list(details.expiring) == [2, 2, 0, 0, 2, 0, 0, 0, 0, 2]


HELD_UP = {
    "isolated": "isolated_since = now(), isolated_reason = 'internal_error',"
    " wake_at = now() + interval '1 hour'",
    "token": "token_standing = 'refused', token_failures = 1,"
    " token_due_at = now() + interval '1 minute', wake_at = now() + interval '1 minute'",
    "pause": "failures = 1, next_slot_at = now() + interval '1 minute', wake_at = now() + interval '1 minute'",
    "back_off": "failures = 1, wake_at = now() + interval '1 minute'",
    "asleep": "wake_at = now() + interval '1 hour'",
    "slot": "next_slot_at = now() + interval '4 seconds'",
    "turn": "failures = 0",
}


async def test_what_holds_up_accounts_that_have_something_due(pool):
    """A reason for each of them; who has nothing due, or is parked, is not overdue."""
    for open_id in (*HELD_UP, "parked", "asleep-well"):
        await store(pool, open_id, "valid", "dead")
    await settle(pool)
    await pool.execute("UPDATE refresher.accounts SET next_slot_at = now()")  # as if long ago
    for open_id, assignments in HELD_UP.items():
        await change(pool, open_id, assignments)
    await change(pool, "parked", "state = 'needs_reauthorization'")
    await pool.execute(
        "UPDATE refresher.videos SET due_at = now() + interval '1 hour' WHERE open_id = $1",
        "asleep-well",
    )
    await change(pool, "asleep-well", "wake_at = 'infinity', earliest_due_at = 'infinity'")
    details = await read(pool)
    assert {row.reason: row.accounts for row in details.overdue} == dict.fromkeys(HELD_UP, 1)
    assert all(row.first_since for row in details.overdue)
    assert {row.open_id: row.reason for row in details.at_risk} == {one: one for one in HELD_UP}
    await pool.execute("UPDATE refresher.app SET paused_since = now()")
    (row,) = (await read(pool)).overdue
    assert (row.reason, row.accounts) == ("everything_paused", len(HELD_UP))


async def test_new_videos_are_overdue_before_they_are_counted(pool):
    """An account that was passed over wakes at -infinity: since when is not known."""
    await store(pool, "new", "new")
    (row,) = (await read(pool)).overdue
    assert (row.reason, row.first_since is None) == ("turn", False)
    await change(pool, "new", "wake_at = '-infinity'")
    (row,) = (await read(pool)).overdue
    assert row.first_since is None


async def test_next_at_risk_are_those_that_expire_first(pool):
    """Of those that have something due; 20 at most."""
    for n in range(25):
        await store(pool, f"account-{n:02}", "valid", "dead")
    await settle(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET valid_until = now() + substr(open_id, 9)::interval"
    )
    details = await read(pool)
    assert [row.open_id for row in details.at_risk] == [f"account-{n:02}" for n in range(20)]
    assert (details.at_risk[0].valid, details.at_risk[0].videos) == (2, 4)


async def test_who_is_throttled_and_until_when(pool):
    """Slowed down or paused by a 429; the one that waits longest first."""
    for open_id in ("ana", "ben", "cleo"):
        await store(pool, open_id, "valid")
    await settle(pool)
    await change(pool, "ana", "rate_share = 0.7, rate_lowered_at = now()")
    await change(pool, "ben", HELD_UP["pause"])
    details = await read(pool)
    assert [row.open_id for row in details.throttled] == ["ben", "ana"]
    assert details.all_throttled == 2
    assert details.throttled[1].rate_share == pytest.approx(0.7, abs=0.05)


async def test_an_account_just_asked_under_a_slow_limit_is_not_throttled(pool):
    """Its next slots are taken, and TikTok has refused nothing."""
    await store(pool, "ana", "valid", "dead")
    slow = Pace(1, 0, lease_seconds=60)
    accounts = Accounts(pool, replica="a", pace=slow)
    (claim,) = await accounts.claim(10)
    await pool.execute("UPDATE refresher.videos SET due_at = now() + interval '1 hour'")
    await accounts.release([Release(claim.open_id, claim.lease_epoch)])
    await pool.execute("UPDATE refresher.accounts SET earliest_due_at = now()")
    ahead = "SELECT next_slot_at > now() + interval '30 seconds' FROM refresher.accounts"
    assert await pool.fetchval(ahead)
    details = await read(pool, slow)
    assert (details.throttled, details.all_throttled) == ([], 0)
    assert [row.reason for row in details.overdue] == ["asleep"]
    (facts,) = await read_facts(pool, ["ana"], None, pace=slow, managed=True, poll_seconds=5)
    assert not facts.account.throttled


async def test_nobody_waits_for_a_token_that_another_program_renews(pool):
    """As the claim has it."""
    await store(pool, "ana", "valid", "dead")
    await settle(pool)
    await change(pool, "ana", HELD_UP["token"])
    (row,) = (await read(pool, managed=False)).overdue
    assert row.reason == "asleep"


async def test_accounts_in_trouble_by_state_reason_and_age(pool):
    """A day, a week, longer. An isolation counts by its code alone."""
    ages = {"ana": 0, "ben": 3, "cleo": 30}
    for open_id, days in ages.items():
        await store(pool, open_id, "valid")
        await change(pool, open_id, "state = 'needs_reauthorization', state_reason = 'x'")
        await change(pool, open_id, f"state_since = now() - interval '{days} days'")
    await store(pool, "dora", "valid")
    await settle(pool)
    await change(pool, "dora", HELD_UP["isolated"])
    await change(pool, "dora", "isolated_reason = 'internal_error, HTTP 500, log_id 1'")
    isolated, parked = (await read(pool)).aged
    assert (isolated.state, isolated.reason, isolated.accounts) == ("isolated", "internal_error", 1)
    assert (parked.within_day, parked.within_week, parked.longer, parked.accounts) == (1, 1, 1, 3)
    (listed,) = await list_troubled(pool, Wanted("isolated", "internal_error"), 10, managed=True)
    assert (listed.open_id, listed.reason) == ("dora", "internal_error, HTTP 500, log_id 1")
    listed = await list_troubled(pool, Wanted(after="ana"), 2, managed=True)
    assert [one.open_id for one in listed] == ["ben", "cleo"]


async def test_an_account_being_claimed_is_being_worked(pool):
    """As the flow leaves it, not as a test writes it."""
    await store(pool, "ana", "dead", "valid")
    await replica(pool).claim(10)
    (row,) = (await read(pool)).overdue
    assert (row.reason, row.accounts, row.first_since) == ("worked", 1, None)


async def test_access_tokens_that_stay_dead_are_a_trouble(pool):
    """With the reason; not those that are only due to be renewed, and once for each account."""
    dead = "access_token_expires_at = now() - interval '2 hours'"
    tokens = {
        "ended": "refresh_token = 'rft.x', refresh_token_expires_at = now()",
        "failed": "refresh_token = 'rft.x'",
        "due": "refresh_token = 'rft.x'",
        "none": "refresh_token = NULL",
        "paused": "state = 'paused', state_reason = 'operator'",
    }
    for open_id, assignments in tokens.items():
        await store(pool, open_id, "valid")
        await change(pool, open_id, f"{dead}, {assignments}")
    await change(pool, "failed", "token_failures = 2")
    details = await read(pool)
    assert {(row.state, row.reason) for row in details.aged} == {
        ("dead_token", "consent_ended"),
        ("dead_token", "renewal_put_off"),
        ("dead_token", "no_refresh_token"),
        ("paused", "operator"),
    }
    assert details.dead_tokens == 3
    listed = await list_troubled(pool, Wanted("dead_token", "renewal_put_off"), 10, managed=True)
    assert [one.open_id for one in listed] == ["failed"]


async def test_where_another_program_renews_tokens_that_is_the_reason(pool):
    """Whether we have a refresh token or not does not matter there."""
    for open_id, token in (("ana", "'rft.x'"), ("ben", "NULL")):
        await store(pool, open_id, "valid")
        await change(pool, open_id, f"access_token_expires_at = now(), refresh_token = {token}")
    (row,) = (await read(pool, managed=False)).aged
    assert (row.state, row.reason, row.accounts) == ("dead_token", "renewed_elsewhere", 2)


async def test_page_doctor_and_list_count_the_same_dead_tokens(pool):
    """An isolated account is listed as isolated, and not once more for its token."""
    for open_id in ("ana", "ben", "cleo"):
        await store(pool, open_id, "valid")
        await change(pool, open_id, "access_token_expires_at = now() - interval '2 hours'")
    await change(pool, "ben", HELD_UP["isolated"])
    await change(pool, "cleo", "state = 'paused'")
    listed = [row["open_id"] async for page in list_accounts(pool, "dead_token") for row in page]
    troubles = await read_troubles(pool, managed=True)
    assert listed == ["ana"]
    assert (troubles.untroubled, troubles.dead_tokens) == (1, 1)
    assert (await read(pool)).dead_tokens == 1


async def test_accounts_with_missing_videos_are_named(pool):
    """Those with the most first, and how many there are."""
    for n in range(25):
        await store(pool, f"account-{n:02}", "valid")
        await change(pool, f"account-{n:02}", f"missing = {n}, videos = 30")
    details = await read(pool)
    assert [row.missing for row in details.missing] == list(range(24, 4, -1))
    assert (details.all_missing, details.missing[0].videos) == (24, 30)
