"""Which changes go to the outbox, and when. Triggers see to it, whoever makes the change."""

import json
from datetime import timedelta

import pytest

from refresher.postgres.outbox import give_up, read_outbox, switch_on, take
from refresher.postgres.status import pause_all
from refresher.postgres.stored import must_say
from refresher.postgres.tokens import consents_ending
from refresher.webhooks.delivery import LEASE, tidy
from tests.test_extreme_times import EXTREMES

PARKED = "UPDATE refresher.accounts SET state = 'needs_reauthorization', state_reason = 'r'"


@pytest.fixture
async def on(pool):
    """Some replica has a webhook URL; 'ana' is an account."""
    await switch_on(pool)
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, refresh_token,"
        " refresh_token_expires_at) VALUES ('ana', 'act.1', 'rft.1', now() + interval '1 year')"
    )


async def told(pool):
    """Type and data of each row, and the outbox is emptied."""
    rows = await pool.fetch("SELECT * FROM refresher.outbox ORDER BY place")
    await pool.execute("DELETE FROM refresher.outbox")
    assert not any("act." in str(row) or "rft." in str(row) for row in rows)
    return [(row["open_id"], row["type"], json.loads(row["data"])) for row in rows]


async def types(pool):
    return [kind for _, kind, _ in await told(pool)]


# --- Accounts ---


async def test_an_account_is_parked_and_recovers(pool, on):
    """By whatever statement: new tokens alone make it active."""
    await pool.execute("SET timezone = 'Asia/Tokyo'")
    await pool.execute(PARKED)
    ((open_id, kind, data),) = await told(pool)
    assert (open_id, kind) == ("ana", "account.parked")
    since = data.pop("since")
    assert data == {"state": "needs_reauthorization", "reason": "r"}
    assert since.endswith("+00:00")
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.2'")
    ((_, kind, data),) = await told(pool)
    assert data.pop("since")
    assert (kind, data) == (
        "account.recovered",
        {"state": "active", "was": "needs_reauthorization"},
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("active", "paused", []),
        ("paused", "active", []),
        ("needs_scope", "paused", []),
        ("needs_scope", "active", ["account.recovered"]),
        ("needs_scope", "needs_reauthorization", ["account.parked"]),
        ("paused", "needs_scope", ["account.parked"]),
        ("active", "active", []),
    ],
)
async def test_which_states_are_told(pool, on, before, after, expected):
    """What an operator pauses and resumes, the application cannot mend."""
    await pool.execute("UPDATE refresher.accounts SET state = $1", before)
    await told(pool)
    await pool.execute("UPDATE refresher.accounts SET state = $1, failures = 1", after)
    assert await types(pool) == expected


async def test_a_change_that_is_rolled_back_was_none(pool, on):
    """The row comes with the change or not at all."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(PARKED)
        await transaction.rollback()
    assert await types(pool) == []


async def test_the_order_of_an_account_does_not_hang_on_the_clock(pool, on):
    """What comes later comes behind what waits, though the clock was set back meanwhile."""
    await pool.execute(PARKED)
    await pool.execute("UPDATE refresher.outbox SET place = place + 3600 * 1000000::bigint")
    await pool.execute("UPDATE refresher.accounts SET state = 'active'")
    assert await types(pool) == ["account.parked", "account.recovered"]


async def test_a_long_reason_is_cut(pool, on):
    """The body stays small, whatever an application writes."""
    await pool.execute(PARKED.replace("'r'", "repeat('r', 5000)"))
    ((_, _, data),) = await told(pool)
    assert data["reason"] == "r" * 200


# --- Consents ---


async def ends_in(pool, span, refresh_token="rft.2"):
    """An application stores another end of the consent."""
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token = $2,"
        " refresh_token_expires_at = now() + $1::interval",
        span,
        refresh_token,
    )


async def test_a_consent_ends(pool, on):
    """It is told 14 and 3 days before and when it has ended, then when a later one has come."""
    for days, expected in (
        (13, ("consent.ending", 14)),
        (2, ("consent.ending", 3)),
        (-1, ("consent.ended", None)),
    ):
        # As if time had passed: the tokens are the same.
        await pool.execute(
            "UPDATE refresher.accounts SET refresh_token_expires_at = now() + $1::interval,"
            " tokens_generation = tokens_generation + 1",
            timedelta(days=days),
        )
        await consents_ending(pool)
        await consents_ending(pool)
        ((open_id, kind, data),) = await told(pool)
        assert (open_id, kind, data.get("within_days")) == ("ana", *expected)
        assert data["ends_at"].endswith("+00:00")
    await ends_in(pool, timedelta(days=365))
    ((_, kind, data),) = await told(pool)
    assert kind == "consent.recovered"
    assert set(data) == {"ends_at"}


async def test_other_tokens_with_the_same_end_are_no_recovery(pool, on):
    """The consent still ends. Only another refresh token with a later end, or none, is news."""
    await ends_in(pool, timedelta(days=2))
    await consents_ending(pool)
    assert await types(pool) == ["consent.ending"]
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.9'")
    assert await types(pool) == []
    await consents_ending(pool)
    await told(pool)
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token = 'rft.9', refresh_token_expires_at = NULL"
    )
    assert await told(pool) == [("ana", "consent.recovered", {"ends_at": None})]


async def test_a_new_authorization_mends_both(pool, on):
    """A parked account whose consent had ended: first the consent, then the account."""
    await ends_in(pool, timedelta(days=-1))
    await consents_ending(pool)
    await pool.execute(PARKED)
    assert await types(pool) == ["consent.ended", "account.parked"]
    await ends_in(pool, timedelta(days=365), "rft.3")
    assert await types(pool) == ["consent.recovered", "account.recovered"]


@pytest.mark.parametrize("extreme", EXTREMES)
async def test_no_time_stands_in_the_way_of_a_change(pool, on, extreme):
    """Whatever ends an application has stored."""
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token = 'rft.2', state_since = $1::text::timestamptz,"
        " refresh_token_expires_at = $1::text::timestamptz",
        extreme,
    )
    await consents_ending(pool)
    await pool.execute(PARKED)
    await ends_in(pool, timedelta(days=365), "rft.3")
    assert await types(pool)
    await pool.execute("UPDATE refresher.app SET webhooks_until = $1::text::timestamptz", extreme)
    await pool.execute(PARKED)
    await switch_on(pool)


# --- The forecast ---


async def test_a_risk_begins_and_ends(pool, on):
    """Once each, with the numbers of the first; it is said again in the log only."""
    risk = {"first_death_at": "2026-12-01T00:00:00+00:00", "covers": 7}
    again = timedelta(0)
    for noted in (risk, {**risk, "covers": 8}, None, None):
        await must_say(pool, noted, again_after=again)
    assert await told(pool) == [("", "forecast.at_risk", risk), ("", "forecast.recovered", {})]


async def test_a_pause_of_everything_is_no_webhook(pool, on):
    """It is an operator's wish."""
    await pool.execute("UPDATE refresher.app SET risk_said_at = now()")
    await told(pool)
    await pause_all(pool, paused=True)
    await pool.execute("UPDATE refresher.app SET risk_said_at = now(), risk = '{}'")
    assert await types(pool) == []


# --- On and off ---


async def test_without_a_url_nothing_is_written(pool):
    """Until a replica with one says so; and a day after the last one has said so no more."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ana')")
    await pool.execute(PARKED)
    await must_say(pool, {"covers": 1}, again_after=timedelta(0))
    await tidy(pool, on=False)
    assert await types(pool) == []
    await tidy(pool, on=True)
    await tidy(pool, on=False)  # another replica, which has no URL yet
    await pool.execute("UPDATE refresher.accounts SET state = 'active'")
    assert await types(pool) == ["account.recovered"]
    await pool.execute(
        "UPDATE refresher.app SET webhooks_until = webhooks_until - interval '24 hours'"
    )
    await pool.execute(PARKED)
    assert await types(pool) == []


async def test_a_replica_that_goes_on_writes_seldom(pool, on):
    """The row of the app is everybody's."""
    before = await pool.fetchval("SELECT xmin FROM refresher.app")
    await switch_on(pool)
    assert await pool.fetchval("SELECT xmin FROM refresher.app") == before
    await pool.execute(
        "UPDATE refresher.app SET webhooks_until = webhooks_until - interval '61 minutes'"
    )
    await switch_on(pool)
    left = await pool.fetchval("SELECT webhooks_until - now() FROM refresher.app")
    assert left > timedelta(hours=23, minutes=59)


# --- An account that is renamed or deleted ---


async def test_webhooks_follow_their_account(pool, on):
    """Under its new name they are told, and with it they are forgotten."""
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ben')")
    await pool.execute(PARKED)
    await pool.execute("UPDATE refresher.accounts SET open_id = 'eva' WHERE open_id = 'ana'")
    taken = await take(pool, 10, LEASE)
    assert {one.webhook.open_id for one in taken} == {"eva", "ben"}
    await pool.execute("DELETE FROM refresher.accounts WHERE open_id = 'ben'")
    assert [open_id for open_id, _, _ in await told(pool)] == ["eva"]


async def test_accounts_can_be_truncated(pool, on):
    """No foreign key stands in the way; what is left is given up a day later."""
    await pool.execute(PARKED)
    await pool.execute("TRUNCATE refresher.accounts, refresher.videos")
    assert (await read_outbox(pool)).waiting == 1
    await pool.execute("UPDATE refresher.outbox SET changed_at = now() - interval '24 hours'")
    assert [one.open_id for one in await give_up(pool)] == ["ana"]
    assert (await read_outbox(pool)).waiting == 0
