"""Tokens at rest: what the sealer promises, and what daemons and commands make of it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.errors import TokenUnreadable
from refresher.postgres.database import acquired
from refresher.postgres.sealing import (
    SEALED,
    Sealer,
    check_readable,
    rotate_all,
    seal_all,
    seal_seen,
)
from refresher.postgres.statements import source
from tests.conftest import eventually, waits_for_a_lock

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
SQL_ROWS = "SELECT * FROM refresher.accounts ORDER BY open_id"

printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=300)
tiktoks = st.builds(
    "{}.{}".format,
    st.sampled_from(["act", "rft", "clt"]),
    st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!._-", max_size=200),
)


# --- The sealer ---


@given(printable | tiktoks | st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_what_is_sealed_can_be_unsealed(token):
    """With any key that sealed it; sealing again changes nothing; the sealed text shows nothing."""
    sealer = Sealer([OLD])
    sealed = sealer.seal(token)
    assert SEALED.fullmatch(sealed)
    assert sealer.seal(sealed) == sealed
    assert sealer.unseal(sealed) == Sealer([NEW, OLD]).unseal(sealed) == token
    assert len(token) < 4 or token not in sealed


@given(tiktoks)
def test_a_token_of_tiktoks_never_looks_sealed(token):
    """So it is always sealed, and is itself when read without keys."""
    assert not SEALED.fullmatch(token)
    assert Sealer([]).unseal(token) == Sealer([OLD]).unseal(token) == token


@given(printable)
def test_rotation_moves_to_the_first_key(token):
    """Whichever key it was sealed with, plain text too; what is current stays as it is."""
    both = Sealer([NEW, OLD])
    for stored in (Sealer([OLD]).seal(token), token):
        rotated = both.rotate(stored)
        assert Sealer([NEW]).unseal(rotated) == token
        assert both.rotate(rotated) == rotated
    with pytest.raises(TokenUnreadable):
        Sealer([OTHER]).rotate(Sealer([OLD]).seal(token))


@pytest.mark.parametrize("keys", [[], [OTHER], [NEW, OTHER]], ids=["none", "another", "others"])
def test_without_the_key_a_sealed_token_is_unreadable(keys):
    """It is not taken for a token, and the error does not show it."""
    sealed = Sealer([OLD]).seal("act.secret")
    with pytest.raises(TokenUnreadable) as raised:
        Sealer(keys).unseal(sealed)
    assert sealed not in str(raised.value)
    assert raised.value.__cause__ is None


def test_without_keys_all_stays_as_it_is():
    """And no token stays no token."""
    assert Sealer([]).seal("act.x") == "act.x"
    assert [Sealer(keys).seal(None) for keys in ([], [OLD])] == [None, None]
    assert [Sealer(keys).rotate(None) for keys in ([], [OLD])] == [None, None]


async def test_the_database_knows_what_is_sealed(pool):
    """As the code does: what is plain to one is plain to the other."""
    sealed = Sealer([OLD]).seal("act.x")
    for text in (sealed, sealed + "\n", sealed + "é", "é" + sealed, sealed[:-3] + "é==", "act.x"):
        looks = await pool.fetchval(f"SELECT $1::text ~ {source('fragments/sealed_pattern')}", text)
        assert looks == bool(SEALED.fullmatch(text)), ascii(text[-4:])


# --- Rows ---


async def store(pool, open_id, access="act.x", refresh="rft.x", state="active"):
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, refresh_token,"
        " access_token_expires_at, state, state_reason, state_since)"
        " VALUES ($1, $2, $3, $4, $5, 'because', '2026-01-01')",
        open_id,
        access,
        refresh,
        datetime.now(UTC) + timedelta(days=1),
        state,
    )


async def all_sealed(pool, keys=(OLD,)):
    rows = await pool.fetch(SQL_ROWS)
    sealer = Sealer(list(keys))
    for column in ("access_token", "refresh_token"):
        for row in rows:
            if row[column] is not None and not SEALED.fullmatch(row[column]):
                return False
            sealer.unseal(row[column])
    return True


async def test_sealing_in_place_changes_nothing_else(pool):
    """A parked account stays parked, since when it was; no wake-up, no expiry, no back-off moves."""
    for state in ("active", "paused", "needs_reauthorization", "needs_scope"):
        await store(pool, state, state=state)
    await store(pool, "without", access=None, refresh=None)
    await pool.execute("UPDATE refresher.accounts SET wake_at = 'infinity', failures = 3")
    before = await pool.fetch(SQL_ROWS)
    assert await seal_all(pool, Sealer([OLD])) == 4
    assert await seal_all(pool, Sealer([OLD])) == 0
    assert await rotate_all(pool, Sealer([NEW, OLD])) == 4
    after = await pool.fetch(SQL_ROWS)
    touched = {"access_token", "refresh_token", "tokens_generation"}
    assert [{k: v for k, v in row.items() if k not in touched} for row in after] == [
        {k: v for k, v in row.items() if k not in touched} for row in before
    ]
    assert [Sealer([NEW]).unseal(row["access_token"]) for row in after] == [
        row["access_token"] for row in before
    ]


async def test_many_rows_are_sealed_and_rotated(pool):
    """More than are read at once; what is done already costs no write."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token)"
        " SELECT n::text, 'act.' || n FROM generate_series(1, 1201) AS n"
    )
    assert await seal_all(pool, Sealer([OLD])) == 1201
    assert await rotate_all(pool, Sealer([NEW, OLD])) == 1201
    assert await rotate_all(pool, Sealer([NEW, OLD])) == 0
    assert await rotate_all(pool, Sealer([NEW])) == 0


async def test_a_locked_row_holds_nobody_up(pool):
    """A claim seals what it can; the rest is sealed at its next sight."""
    for name in ("ana", "ben"):
        await store(pool, name)
    rows = await pool.fetch(SQL_ROWS)
    async with pool.acquire() as application, application.transaction():
        await application.execute("SELECT FROM refresher.accounts WHERE open_id = 'ana' FOR UPDATE")
        async with acquired(pool) as connection:
            assert await seal_seen(connection, Sealer([OLD]), rows) == {"ben": 1}
        assert await seal_all(pool, Sealer([OLD])) == 0
    assert await seal_all(pool, Sealer([OLD])) == 1
    assert await all_sealed(pool)


async def test_a_rotation_waits_for_a_locked_row_and_leaves_none_behind(pool):
    """Whoever drops the old key afterwards must not lose a token that changed meanwhile."""
    for name in ("ana", "ben"):
        await store(pool, name)
    await seal_all(pool, Sealer([OLD]))
    async with pool.acquire() as application, application.transaction():
        await application.execute(
            "UPDATE refresher.accounts SET scope = 'video.list' WHERE open_id = 'ana'"
        )
        rotating = asyncio.create_task(rotate_all(pool, Sealer([NEW, OLD])))
        await eventually(lambda: waits_for_a_lock(pool), "a waiting rotation")
    assert await rotating == 2
    assert await all_sealed(pool, [NEW])


async def test_an_unreadable_account_is_named_and_the_others_rotated(pool):
    """Nothing is lost: with its key added, the same command ends it."""
    for name, key in {"ana": OLD, "ben": OTHER, "cid": OLD}.items():
        await store(pool, name, Sealer([key]).seal("act.x"), Sealer([OLD]).seal("rft.x"))
    with pytest.raises(TokenUnreadable, match=r"^account ben: .*the other accounts are done, 2 "):
        await rotate_all(pool, Sealer([NEW, OLD]))
    assert await rotate_all(pool, Sealer([NEW, OLD, OTHER])) == 1
    assert await all_sealed(pool, [NEW])


async def test_only_a_database_that_cannot_be_read_at_all_stops_the_start(pool):
    """A few lost accounts are no reason; none readable means that the keys are wrong."""
    await check_readable(pool, Sealer([]))
    for number in range(600):
        await store(pool, f"{number:03}", access=Sealer([OTHER]).seal("act.x"), refresh=None)
    with pytest.raises(TokenUnreadable, match="accounts: 600"):
        await check_readable(pool, Sealer([OLD]))
    with pytest.raises(TokenUnreadable):
        await check_readable(pool, Sealer([]))
    await store(pool, "last", access=None, refresh=Sealer([OLD]).seal("rft.x"))
    await check_readable(pool, Sealer([OLD]))


# --- Daemons and commands ---


async def test_tokens_are_sealed_at_first_sight(serve, start, pool):
    """Those that lay there at the start, and what other programs write later, within a poll."""
    world = await serve()
    await world.add_account("ana", videos=1)
    await store(pool, "paused", state="paused")
    await store(pool, "parked", state="needs_scope")
    daemon = await start(world, poll_seconds=0.2, token_keys=OLD)

    async def sealed():
        return await all_sealed(pool)

    await eventually(sealed, "all tokens to be sealed")
    assert (await daemon.until_event("tokens.sealed"))["accounts"] >= 2
    await world.until_valid(1)
    kept = await pool.fetch(
        "SELECT state, state_reason FROM refresher.accounts WHERE state_since < '2026-02-01'"
    )
    assert len(kept) == 2
    await world.add_account("ben", videos=1)
    world.emulator.add_account("ana", "act.another")
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = 'act.another' WHERE open_id = 'ana'"
    )
    await world.add_videos("ana", 1)
    await world.until_valid(3)
    await eventually(sealed, "the new tokens to be sealed")
    assert not [arrival for arrival in world.emulator.record if arrival.status != 200]
    assert daemon.events("tokens.unsealed") == []


async def test_keys_are_rotated_while_a_daemon_runs(serve, start, pool):
    """As docs/security.md says: no account is worked less for it, and the old key can go."""
    world = await serve(cover_ttl=6)
    for number in range(5):
        await world.add_account(f"account-{number}", videos=20)
    await store(pool, "parked", state="needs_scope")
    settings = {"poll_seconds": 0.2}
    first = await start(world, token_keys=f"{OLD},{NEW}", **settings)
    await world.until_valid(100)
    assert await first.stopped() == 0
    second = await start(world, token_keys=f"{NEW},{OLD}", **settings)
    await second.until_event("daemon.started")
    rotating = await start(command="tokens rotate", token_keys=f"{NEW},{OLD}")
    assert await rotating.ended() == 0
    assert rotating.output.read_text() == "6 accounts encrypted with the first key\n"
    assert await all_sealed(pool, [NEW])
    assert await second.stopped() == 0
    await pool.execute("UPDATE refresher.videos SET cover_expires_at = now(), due_at = now()")
    await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    third = await start(world, token_keys=NEW, **settings)
    await world.until_valid(100)
    for daemon in (first, second, third):
        for event in ("account.blocked", "account.parked", "account.failed"):
            assert daemon.events(event) == []
    row = await pool.fetchrow("SELECT * FROM refresher.accounts WHERE open_id = 'parked'")
    assert (row["state"], row["state_since"].year) == ("needs_scope", 2026)
    assert row["state_reason"] == "because"


@pytest.mark.parametrize(
    ("command", "keys"),
    [("run", ""), ("once", OTHER), ("run", f"{OTHER},{NEW}")],
    ids=["none", "another", "others"],
)
async def test_wrong_or_missing_keys_end_the_daemon(start, pool, command, keys):
    """One line that says what to do, exit 2; nothing in the database changes."""
    await store(pool, "ana")
    await seal_all(pool, Sealer([OLD]))
    before = await pool.fetch(SQL_ROWS)
    daemon = await start(command=command, token_keys=keys, tiktok_base_url="http://127.0.0.1:9")
    assert await daemon.ended() == 2
    (line,) = daemon.output.read_text().splitlines()
    assert line.startswith("refresher: the stored tokens are sealed (accounts: 1)")
    assert "REFRESHER_TOKEN_KEYS" in line
    assert await pool.fetch(SQL_ROWS) == before


async def test_an_account_whose_key_is_lost_waits_and_the_others_go_on(serve, start, pool):
    """It is said to be blocked, asked for nothing, and mended by new tokens."""
    world = await serve()
    await world.add_account("ana", videos=1)
    await world.add_account("ben", videos=1)
    await seal_all(pool, Sealer([OLD]))
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = $1 WHERE open_id = 'ben'",
        Sealer([OTHER]).seal("act.ben"),
    )
    daemon = await start(world, poll_seconds=0.2, token_keys=OLD)
    assert (await daemon.until_event("account.blocked"))["open_id"] == "ben"
    await world.until_valid(1)
    assert {arrival.open_id for arrival in world.emulator.record} == {"ana"}
    world.emulator.add_account("ben", "act.again")
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = 'act.again' WHERE open_id = 'ben'"
    )
    await world.until_valid(2)
