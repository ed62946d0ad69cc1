"""The tokens' life with real daemons: refreshed in time, lost to nothing, parked only when dead."""

import asyncio
import random
import secrets
import signal
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest
from aiohttp import web
from cryptography.fernet import Fernet

from refresher.domain.model import TokenPair
from refresher.domain.pacing import Pace
from refresher.emulator.options import EmulatorOptions
from refresher.postgres.accounts import Accounts
from refresher.postgres.sealing import Sealer, rotate_all
from refresher.postgres.tokens import TokenStore, consents_ending
from tests.conftest import administer, eventually, until, waits_for_a_lock
from tests.test_refused import profile_held

CLIENT = {"tiktok_client_key": "key-of-the-app", "tiktok_client_secret": "secret-of-the-app"}
SETTINGS = {**CLIENT, "poll_seconds": 0.2}


def in_seconds(seconds):
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)


async def authorize(world, name, videos=1, *, lives=None, told=True, consent=86_400 * 365):
    """An account that both sides know, with a pair of tokens.

    The access token lives so many seconds (None: until it is revoked); `told`: the row says so.
    """
    access, refresh = (f"{kind}.{name}-{secrets.token_hex(8)}" for kind in ("act", "rft"))
    now = time.time()
    world.emulator.add_account(
        name,
        access,
        access_token_expires_at=None if lives is None else now + lives,
        refresh_token=refresh,
        refresh_token_expires_at=now + consent,
    )
    await world.pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
        " refresh_token, refresh_token_expires_at) VALUES ($1, $2, $3, $4, $5)",
        name,
        access,
        in_seconds(lives) if told else None,
        refresh,
        in_seconds(consent),
    )
    await world.add_videos(name, videos)


async def row_of(pool, open_id):
    return await pool.fetchrow("SELECT * FROM refresher.accounts WHERE open_id = $1", open_id)


async def standing(pool, open_id):
    row = await row_of(pool, open_id)
    return row["state"], row["state_reason"]


async def is_live(world, open_id):
    """Whether the stored refresh token is one that the emulator takes."""
    row = await row_of(world.pool, open_id)
    return world.emulator.holds_refresh_token(open_id, row["refresh_token"])


def token_calls(world):
    return Counter(arrival.open_id for arrival in list(world.emulator.token_record))


def refusals(world):
    return [arrival for arrival in list(world.emulator.record) if arrival.status == 401]


def calls_of(world, *names):
    """All requests of these accounts; one with a dead token is nobody's."""
    queries = Counter(arrival.open_id for arrival in list(world.emulator.record))
    return {name: token_calls(world)[name] + queries[name] for name in names} | {
        None: queries[None]
    }


async def until_token_calls(world, number):
    async def reached():
        return len(world.emulator.token_record) >= number

    await eventually(reached, f"{number} token requests")


async def in_a_hurry(pool, condition, what):
    """Wait for the condition with all back-offs cut short."""

    async def hurried():
        await pool.execute(
            "UPDATE refresher.accounts SET token_due_at = now(), wake_at = now()"
            " WHERE token_failures > 0 AND token_due_at > now() AND lease_expires_at IS NULL"
        )
        return await condition()

    await eventually(hurried, what)


async def several_polls(world, name="polls"):
    """Shown by an account whose new videos are asked for, three times, one after the other."""
    if not await row_of(world.pool, name):
        await world.add_account(name)
    for _ in range(3):
        before = await world.valid()
        await world.add_videos(name, 1)
        await world.until_valid(before + 1)


def oauth_error(code, status):
    body = {"error": code, "error_description": "as scripted", "log_id": "20260101"}
    return web.json_response(body, status=status)


# --- Dead and ending access tokens ---


@pytest.mark.parametrize("replicas", [1, 2])
async def test_dead_access_tokens_are_refreshed_with_one_call_each(serve, start, replicas):
    """Revoked or expired, whether the row says so or not: one token request, then the covers."""
    world = await serve()
    for number in range(12):
        is_revoked, told = number % 2, number % 4 < 2
        await authorize(world, f"account-{number}", 2, lives=3600 if is_revoked else -1, told=told)
        if is_revoked:
            world.emulator.revoke_access_token(f"account-{number}")
    daemons = [await start(world, **SETTINGS) for _ in range(replicas)]
    await world.until_valid(24)
    await world.until_no_leases()
    assert token_calls(world) == {f"account-{number}": 1 for number in range(12)}
    assert not any(arrival.used_before for arrival in world.emulator.token_record)
    assert all([await is_live(world, f"account-{number}") for number in range(12)])
    assert sum(len(daemon.events("token.refreshed")) for daemon in daemons) == 12


async def test_tokens_are_refreshed_before_they_expire(serve, start, pool):
    """Over several lifetimes nothing is refused; an account without a due video is no exception."""
    world = await serve(access_token_ttl_seconds=5, cover_ttl=3)
    await authorize(world, "busy", 20, lives=5)
    await authorize(world, "idle", 0, lives=5)
    daemon = await start(world, **SETTINGS)

    async def refreshed_often():
        return min(token_calls(world)[name] for name in ("busy", "idle")) >= 4

    await eventually(refreshed_often, "four refreshes of each")
    assert refusals(world) == []
    assert len({arrival.refresh_token_digest for arrival in world.emulator.token_record}) == len(
        world.emulator.token_record
    )
    assert await daemon.stopped() == 0
    assert await pool.fetchval("SELECT bool_and(state = 'active') FROM refresher.accounts")


async def test_a_token_refused_again_after_its_refresh_parks(serve, start, pool):
    """A second new token would be no better: no loop."""
    world = await serve()
    await authorize(world, "ana")
    refused = {"error": {"code": "access_token_invalid", "message": "", "log_id": "2026"}}
    world.emulator.answer_with = lambda query: (
        web.json_response(refused, status=401) if query.open_id == "ana" else None
    )
    daemon = await start(world, **SETTINGS)
    assert (await daemon.until_event("account.parked"))["reason"] == "access_token_invalid"
    assert await standing(pool, "ana") == ("needs_reauthorization", "access_token_invalid")
    calls = calls_of(world, "ana")
    await several_polls(world)
    assert calls_of(world, "ana") == calls == {"ana": 3, None: 0}


# --- Parked and revived ---


async def test_a_parked_account_costs_nothing_until_its_tokens_change(serve, start, pool):
    """A dead refresh token and a lost scope park; an UPDATE of the tokens alone ends it."""
    world = await serve()
    for name in ("ana", "ben", "cid"):
        await authorize(world, name)
    world.emulator.revoke_access_token("ana")
    world.emulator.revoke_refresh_token("ana")
    world.emulator.set_scope("ben", "user.info.basic")
    await pool.execute("UPDATE refresher.accounts SET refresh_token = '' WHERE open_id = 'cid'")
    world.emulator.revoke_access_token("cid")
    daemon = await start(world, **SETTINGS)
    await daemon.until_event("account.parked", 3)
    parked = {event["open_id"]: event for event in daemon.events("account.parked")}
    states = {
        "ana": ("needs_reauthorization", "invalid_grant"),
        "ben": ("needs_scope", "scope_not_authorized"),
        "cid": ("needs_reauthorization", "no_usable_refresh_token"),
    }
    for name, expected in states.items():
        assert (parked[name]["state"], parked[name]["reason"]) == expected
        assert await standing(pool, name) == expected
    assert token_calls(world) == {"ana": 1}
    # Nothing is open: resumed by the operator, it would not be said to be lost.
    open_requests = "SELECT count(token_request_until) FROM refresher.accounts"
    assert await pool.fetchval(open_requests) == 0
    calls = calls_of(world, *states)
    await several_polls(world)
    assert calls_of(world, *states) == calls
    world.emulator.add_account("ana", "act.again")
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = 'act.again' WHERE open_id = 'ana'"
    )
    for name in ("ben", "cid"):
        world.emulator.add_account(name, f"act.new-{name}", refresh_token=f"rft.new-{name}")
        await pool.execute(
            "UPDATE refresher.accounts SET access_token = 'act.new-' || open_id,"
            " access_token_expires_at = now() + interval '1 day',"
            " refresh_token = 'rft.new-' || open_id,"
            " refresh_token_expires_at = now() + interval '1 year', scope = 'video.list'"
            " WHERE open_id = $1",
            name,
        )
    await world.until_valid(3 + 3)
    for name in states:
        assert await standing(pool, name) == ("active", None)


@pytest.mark.parametrize(
    "settings",
    [{"token_management": "external", **CLIENT}, {}],
    ids=["external", "no client"],
)
async def test_tokens_that_are_not_ours_to_refresh_are_left_alone(serve, start, pool, settings):
    """No token request ever; a refused account waits without calls until its row changes."""
    world = await serve()
    await authorize(world, "ana", lives=600)
    await authorize(world, "ben", lives=-1)
    world.emulator.revoke_access_token("ana")
    daemon = await start(world, poll_seconds=0.2, **settings)
    await daemon.until_event("account.parked", 2)
    calls = calls_of(world, "ana", "ben")
    await several_polls(world)
    assert calls_of(world, "ana", "ben") == calls
    for name in ("ana", "ben"):
        world.emulator.add_account(name, f"act.new-{name}")
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = 'act.new-' || open_id"
        " WHERE open_id IN ('ana', 'ben')"
    )
    await world.until_valid(3 + 2)
    assert not world.emulator.token_record
    assert len(daemon.events("tokens.unmanaged")) == (not settings)


# --- What the token endpoint answers ---


async def test_a_refused_client_is_nobodys_fault(serve, start, pool):
    """Said once; valid tokens go on being used, dead ones wait, and the endpoint is left alone."""
    world = await serve(client_key="another", client_secret="secret")
    for number in range(4):
        await authorize(world, f"dead-{number}")
        world.emulator.revoke_access_token(f"dead-{number}")
        await authorize(world, f"ending-{number}", 5, lives=600)
    daemon = await start(world, **SETTINGS)
    await world.until_valid(20)
    await daemon.until_event("client.refused")

    async def waits():
        return await pool.fetchval(
            "SELECT bool_and(token_due_at > now() + interval '1 minute') FROM refresher.accounts"
        )

    await eventually(waits, "all to wait for better credentials")
    asked = len(world.emulator.token_record)
    assert asked <= 8
    await several_polls(world)
    assert len(world.emulator.token_record) == asked
    assert await pool.fetchval("SELECT bool_and(state = 'active') FROM refresher.accounts")
    assert len(daemon.events("client.refused")) == 1


PARKING = {
    "grant-200": ("invalid_grant", 200, "needs_reauthorization"),
    "grant-400": ("invalid_grant", 400, "needs_reauthorization"),
    "denied-200": ("access_denied", 200, "needs_reauthorization"),
    "scope-200": ("invalid_scope", 200, "needs_scope"),
    "scope-400": ("invalid_scope", 400, "needs_scope"),
}
PASSING = {
    "server-200": lambda: oauth_error("server_error", 200),
    "server-500": lambda: oauth_error("server_error", 500),
    "unavailable-503": lambda: oauth_error("temporarily_unavailable", 503),
    "request-400": lambda: oauth_error("invalid_request", 400),
    "unknown-200": lambda: oauth_error("a_code_nobody_has_seen", 200),
    "html-502": lambda: web.Response(text="<html>502</html>", status=502),
    "html-200": lambda: web.Response(text="<html>busy</html>", content_type="text/html"),
}


async def test_each_answer_of_the_token_endpoint_has_its_meaning(serve, start, pool):
    """Known by the body, whatever the status: parked for good, or tried again after a back-off."""
    world = await serve()
    cases = {}
    for name in (*PARKING, *PASSING):
        await authorize(world, name, lives=-1)
        cases[(await row_of(pool, name))["refresh_token"]] = name

    def answer(form):
        name = cases.pop(form["refresh_token"], None)  # the first time only
        if name in PARKING:
            return oauth_error(*PARKING[name][:2])
        return PASSING[name]() if name else None

    world.emulator.answer_token_with = answer
    daemon = await start(world, **SETTINGS)

    async def all_valid():
        return await world.valid() == len(PASSING)

    await daemon.until_event("token.failed", len(PARKING) + len(PASSING))
    await in_a_hurry(pool, all_valid, "the others to be refreshed")
    await daemon.until_event("account.parked", len(PARKING))
    for name, (code, _, state) in PARKING.items():
        assert await standing(pool, name) == (state, code)
    for name in PASSING:
        assert await standing(pool, name) == ("active", None)
    assert token_calls(world) == dict.fromkeys(PARKING, 1) | dict.fromkeys(PASSING, 2)
    failed = {event["open_id"]: event for event in daemon.events("token.failed")}
    assert failed.keys() == PARKING.keys() | PASSING.keys()
    assert all((failed[name]["retry_in_seconds"] is None) == (name in PARKING) for name in failed)
    assert failed["grant-200"]["log_id"] == "20260101"


@pytest.mark.parametrize("rotation", ["strict", "lenient"])
async def test_a_new_pair_that_never_arrived(serve, start, pool, rotation):
    """The stored token is tried again: it recovers where it lives on, else it is said to be lost."""
    faults = {"token_timeout_share": 0.34, "token_cut_share": 0.33, "token_malformed_share": 0.33}
    world = await serve(refresh_token_rotation=rotation, seed=7, **faults)
    names = [f"account-{number}" for number in range(6)]
    for name in names:
        await authorize(world, name, lives=-1)
    daemon = await start(world, request_timeout_seconds=1, **SETTINGS)

    async def all_asked():
        return len(token_calls(world)) == len(names)

    await eventually(all_asked, "a token request of each")
    assert len({arrival.error_code for arrival in list(world.emulator.token_record)[:6]}) == 3
    before = token_calls(world)
    world.emulator.options = EmulatorOptions(refresh_token_rotation=rotation)

    async def settled():
        parked = len(daemon.events("account.parked"))
        return (await world.valid() if rotation == "lenient" else parked) == len(names)

    await in_a_hurry(pool, settled, "all to be known")
    if rotation == "lenient":
        return
    for name in names:
        expected = ("needs_reauthorization", "refresh_token_lost")
        assert await standing(pool, name) == expected
    assert token_calls(world) == {name: before[name] + 1 for name in names}
    lost = [e for e in daemon.events("token.failed") if e["code"] == "refresh_token_lost"]
    assert {(e["open_id"], e["detail"]) for e in lost} == {(n, "invalid_grant") for n in names}


async def test_a_lost_token_is_said_to_be_lost_also_after_another_failure(serve, start, pool):
    """A server error in between does not make one forget the answer that never came."""
    world = await serve(token_cut_share=1.0)
    await authorize(world, "ana", lives=-1)
    daemon = await start(world, **SETTINGS)
    await until_token_calls(world, 1)
    scripted = [oauth_error("server_error", 500)]
    world.emulator.answer_token_with = lambda _: scripted.pop() if scripted else None

    async def parked():
        return daemon.events("account.parked")

    await in_a_hurry(pool, parked, "the account to be parked")
    assert await standing(pool, "ana") == ("needs_reauthorization", "refresh_token_lost")
    assert [e["code"] for e in daemon.events("token.failed")] == [
        "connection_failed",
        "server_error",
        "refresh_token_lost",
    ]


# --- Somebody else at the same time ---


async def test_another_programs_pair_wins(serve, start, pool):
    """Stored while our refresh was under way, it stays, and the account goes on with it."""
    world = await serve(latency_seconds=1.0)
    await authorize(world, "ana", lives=-1)
    daemon = await start(world, **SETTINGS)
    await until_token_calls(world, 1)
    world.emulator.add_account("ana", "act.theirs", refresh_token="rft.theirs")
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = 'act.theirs', refresh_token = 'rft.theirs'"
    )
    assert (await daemon.until_event("token.refreshed"))["stored"] is False
    await world.until_valid(1)
    row = await row_of(pool, "ana")
    assert (row["access_token"], row["refresh_token"]) == ("act.theirs", "rft.theirs")
    assert (row["state"], len(world.emulator.token_record)) == ("active", 1)


@pytest.fixture
async def begun(pool):
    """A token refresh that is under way: (store, claim, used)."""
    await pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
        " refresh_token) VALUES ('ana', 'act.old', now() - interval '1 s', 'rft.old')"
    )
    sealer = Sealer([Fernet.generate_key().decode()])
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
    assert (used.token, used.interrupted) == ("rft.old", False)
    return store, claim, used, sealer


NEW = TokenPair("act.new", 7200.0, "rft.new", 86_400.0, "video.list")


async def test_a_key_rotation_costs_no_new_pair(pool, begun):
    """Nor does any other change that leaves the refresh token the same, nor storing it twice."""
    store, claim, used, sealer = begun
    newer = Sealer([Fernet.generate_key().decode()])
    both = Sealer([])
    both._all, both._first = sealer._all, newer._first
    await pool.execute("UPDATE refresher.accounts SET scope = 'video.list'")
    assert await rotate_all(pool, both) == 1
    assert await store.replace(claim, used, NEW, 3600.0)
    assert await store.replace(claim, used, NEW, 3600.0)
    row = await row_of(pool, "ana")
    assert (sealer.unseal(row["access_token"]), sealer.unseal(row["refresh_token"])) == (
        "act.new",
        "rft.new",
    )
    assert row["token_request_until"] is None


async def test_an_access_token_of_theirs_stays_beside_our_refresh_token(pool, begun):
    """Theirs is what they meant; the refresh token they left is used up, ours is not."""
    store, claim, used, sealer = begun
    await pool.execute(
        "UPDATE refresher.accounts"
        " SET access_token = 'act.theirs', access_token_expires_at = now() + interval '9 h'"
    )
    before = await row_of(pool, "ana")
    assert await store.replace(claim, used, NEW, 3600.0)
    row = await row_of(pool, "ana")
    assert (row["access_token"], sealer.unseal(row["refresh_token"])) == ("act.theirs", "rft.new")
    kept = ("access_token_expires_at", "token_due_at", "token_standing")
    assert [row[column] for column in kept] == [before[column] for column in kept]


@pytest.mark.parametrize(
    ("state", "then"),
    [("needs_reauthorization", "active"), ("needs_scope", "needs_scope"), ("paused", "paused")],
)
async def test_a_new_pair_ends_what_the_old_one_began(pool, begun, state, then):
    """Whoever parked the account meanwhile knew the old pair only; an operator's pause stays."""
    store, claim, used, _ = begun
    await pool.execute(
        "UPDATE refresher.accounts SET state = $1, state_reason = 'x', wake_at = 'infinity'", state
    )
    assert await store.replace(claim, used, NEW, 3600.0)
    row = await row_of(pool, "ana")
    assert (row["state"], row["state_reason"]) == (then, None if then == "active" else "x")
    assert (row["wake_at"].year == 9999) == (then != "active")


async def test_a_deleted_account_takes_no_pair(pool, begun):
    """There is nothing to store it in, and no error either."""
    store, claim, used, _ = begun
    await pool.execute("DELETE FROM refresher.accounts")
    assert not await store.replace(claim, used, NEW, 3600.0)


# --- Crashes and outages ---


@pytest.mark.parametrize("lease_seconds", [60, 1], ids=["leased", "lease over"])
async def test_a_new_pair_outlasts_an_outage(serve, start, server, pool, lease_seconds):
    """The database went away between the answer and the commit, perhaps for longer than the lease."""
    world = await serve(latency_seconds=1.0)
    await authorize(world, "ana", lives=-1)
    daemon = await start(world, lease_seconds=lease_seconds, **SETTINGS)
    await until_token_calls(world, 1)
    world.emulator.options = EmulatorOptions()
    async with locked_out(server, pool):
        await daemon.until_event("database.lost")
        await until_answered(world)
        if lease_seconds == 1:
            over = "SELECT lease_expires_at < now() FROM refresher.accounts"
            await eventually(lambda: pool.fetchval(over), "the end of the lease")
    await world.until_valid(1)
    assert lease_seconds == 1 or len(world.emulator.token_record) == 1
    assert await is_live(world, "ana")


async def test_a_pair_that_cannot_be_stored_in_time_is_said_to_be_lost(serve, start, server, pool):
    """At the end of the grace time; the next daemon finds out what the old one is worth."""
    world = await serve(latency_seconds=1.5)
    await authorize(world, "ana", lives=-1)
    daemon = await start(world, shutdown_grace_seconds=3, **SETTINGS)
    await until_token_calls(world, 1)
    async with locked_out(server, pool):
        await until_answered(world)
        await daemon.until_event("database.lost")
        assert await daemon.stopped() == 0
    assert [event["open_id"] for event in daemon.events("token.lost")] == ["ana"]
    assert daemon.events("account.failed") == []
    # The time passes in which the old one might still have stored it.
    await pool.execute(
        "UPDATE refresher.accounts"
        " SET lease_expires_at = now(), wake_at = now(), token_request_until = now()"
    )
    await (await start(world, **SETTINGS)).until_event("account.parked")
    assert await standing(pool, "ana") == ("needs_reauthorization", "refresh_token_lost")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("RAISE 'a deploy is under way';", "a deploy is under way"),
        ("RETURN NULL;", "a trigger or a rule suppresses the UPDATE"),
        ("RAISE 'not an object' USING ERRCODE = '22023';", "not an object"),
    ],
)
async def test_a_pair_that_a_trigger_refuses_is_kept_until_it_is_mended(
    serve, start, pool, body, reason
):
    """It exists nowhere else. Said once, and the other accounts go on."""
    world = await serve()
    await authorize(world, "ana", lives=-1)
    await pool.execute(
        f"CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
    )
    await pool.execute(
        "CREATE TRIGGER no BEFORE UPDATE OF refresh_token ON refresher.accounts FOR EACH ROW"
        " WHEN (NEW.refresh_token IS DISTINCT FROM OLD.refresh_token)"
        " EXECUTE FUNCTION public.no()"
    )
    daemon = await start(world, **SETTINGS)
    refused = await daemon.until_event("account.refused")
    assert (refused["open_id"], refused["at"], refused["reason"]) == ("ana", "token", reason)
    await world.add_account("ben", videos=1)
    await world.until_valid(1)
    await until(monotonic() + 2)
    await pool.execute("DROP TRIGGER no ON refresher.accounts")
    await world.until_valid(2)
    assert await daemon.stopped() == 0
    assert len(world.emulator.token_record) == 1
    assert len(daemon.events("account.refused")) == 1
    assert daemon.events("token.lost") == []
    assert await is_live(world, "ana")


async def test_a_pair_that_waits_for_a_lock_keeps_nobody_from_being_tried(
    serve, start, pool, database
):
    """TikTok is away for some seconds meanwhile: the others are fresh soon after."""
    world = await serve()
    for number in range(20):
        await world.add_account(f"good-{number}", videos=20)
    await pool.execute("CREATE TABLE public.profiles AS SELECT 'ana' AS name")
    await pool.execute(
        "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM FROM public.profiles FOR UPDATE; RETURN NEW; END $$"
    )
    await pool.execute(
        "CREATE TRIGGER wait BEFORE UPDATE OF refresh_token ON refresher.accounts FOR EACH ROW"
        " WHEN (NEW.refresh_token IS DISTINCT FROM OLD.refresh_token)"
        " EXECUTE FUNCTION public.wait()"
    )
    daemon = await start(world, **SETTINGS)
    await world.until_valid(400)
    async with profile_held(database):
        await authorize(world, "ana", lives=-1)
        await eventually(lambda: waits_for_a_lock(pool), "the pair to wait")
        world.emulator.down = "failed"
        await pool.execute(
            "UPDATE refresher.videos SET due_at = now(), cover_expires_at = now() WHERE open_id <> 'ana'"
        )
        await until(monotonic() + 4)
        world.emulator.down = None
        await world.until_valid(400, seconds=15)
    await world.until_valid(401)
    assert await daemon.stopped() == 0


async def test_a_stop_waits_for_a_pair_and_stores_it(serve, start, pool):
    """SIGTERM amid a token request: exit 0, the new pair is there, no lease is left."""
    world = await serve(latency_seconds=0.5)
    await authorize(world, "ana", lives=-1)
    daemon = await start(world, **SETTINGS)
    await until_token_calls(world, 1)
    assert await daemon.stopped() == 0
    assert daemon.events("token.refreshed")[0]["stored"] is True
    row = await row_of(pool, "ana")
    assert (row["lease_expires_at"], row["token_request_until"]) == (None, None)
    assert await is_live(world, "ana")


async def test_rotating_keys_costs_no_pair(serve, start, pool):
    """Again and again while many tokens are refreshed: each new pair is stored."""
    accounts = 40
    world = await serve(latency_seconds=0.1)
    for number in range(accounts):
        await authorize(world, f"account-{number}", lives=-1)
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    daemon = await start(world, concurrency=4, token_keys=",".join(keys), **SETTINGS)
    await until_token_calls(world, 1)
    rotations = 0
    while await world.valid() < accounts:
        keys.reverse()
        rotations += await rotate_all(pool, Sealer(keys)) > 0
    assert rotations > 1
    assert token_calls(world) == {f"account-{number}": 1 for number in range(accounts)}
    assert daemon.events("account.parked") == daemon.events("account.blocked") == []
    sealer = Sealer(keys)
    for row in await pool.fetch("SELECT * FROM refresher.accounts"):
        refresh_token = sealer.unseal(row["refresh_token"])
        assert world.emulator.holds_refresh_token(row["open_id"], refresh_token)


async def until_answered(world):
    async def answered():
        return world.emulator.token_record[0].answered

    await eventually(answered, "the answer to the token request")


@asynccontextmanager
async def locked_out(server, pool):
    """The daemons have no database meanwhile; the test's own connections stay."""
    name = await pool.fetchval("SELECT current_database()")
    await administer(
        server,
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND application_name = 'refresher'",
    )
    yield
    await administer(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def test_a_daemon_frozen_in_a_refresh_does_no_harm(serve, start, pool):
    """Another one takes over and parks the account, which is said; the pair that comes late ends it."""
    world = await serve(latency_seconds=1.5)
    await authorize(world, "ana", lives=-1)
    frozen = await start(world, lease_seconds=1, request_timeout_seconds=60, **SETTINGS)
    await until_token_calls(world, 1)
    frozen.process.send_signal(signal.SIGSTOP)
    world.emulator.options = EmulatorOptions()
    other = await start(world, lease_seconds=1, **SETTINGS)
    assert (await other.until_event("account.parked"))["reason"] == "refresh_token_lost"
    assert await standing(pool, "ana") == ("needs_reauthorization", "refresh_token_lost")
    frozen.process.send_signal(signal.SIGCONT)
    await world.until_valid(1)
    assert await standing(pool, "ana") == ("active", None)
    assert await is_live(world, "ana")


@pytest.mark.long
async def test_no_account_is_lost_to_kill_9(serve, start, pool):
    """50 kills amid token refreshes: each account is alive and well, or parked and says why."""
    kills, accounts = 50, 150
    chance = random.Random(20)
    world = await serve(latency_seconds=0.1, access_token_ttl_seconds=4)
    for number in range(accounts):
        await authorize(world, f"account-{number}", lives=-1)
    key = Fernet.generate_key().decode()
    settings = {**SETTINGS, "lease_seconds": 1, "concurrency": 3, "token_keys": key}
    daemon = await start(world, **settings)
    for _ in range(kills):
        seen = len(world.emulator.token_record)
        successor = await start(world, **settings)
        await until_token_calls(world, seen + 1)
        await asyncio.sleep(chance.uniform(0, 0.3))
        daemon.process.kill()
        daemon = successor
    world.emulator.options = EmulatorOptions()
    rows = []

    async def settled():
        rows[:] = await pool.fetch(
            "SELECT a.*, bool_and(v.cover_expires_at > now()) AS valid"
            " FROM refresher.accounts AS a JOIN refresher.videos AS v USING (open_id)"
            " GROUP BY a.open_id"
        )
        in_an_hour = in_seconds(3600)
        return all(
            row["state"] != "active"
            or (row["valid"] and row["access_token_expires_at"] > in_an_hour)
            for row in rows
        )

    await eventually(
        settled, "every account to be parked, or valid with a token of after the kills"
    )
    assert len(rows) == accounts
    for row in rows:
        if row["state"] == "active":
            refresh_token = Sealer([key]).unseal(row["refresh_token"])
            assert world.emulator.holds_refresh_token(row["open_id"], refresh_token)
        else:
            expected = ("needs_reauthorization", "refresh_token_lost")
            assert (row["state"], row["state_reason"]) == expected
    # One request at a time for each daemon's place, so no kill may cost more than those.
    assert sum(row["state"] != "active" for row in rows) <= kills * settings["concurrency"]


# --- The end of a consent ---


async def test_the_end_of_a_consent_is_said_in_time(serve, start, pool):
    """Within 14 and within 3 days, each once for all replicas, and anew for a new authorization."""
    world = await serve()
    for name, days in {"far": 20, "near": 10, "nearer": 2, "parked": 2}.items():
        await authorize(world, name, 0, consent=86_400 * days)
    await pool.execute(
        "UPDATE refresher.accounts SET state = 'needs_reauthorization' WHERE open_id = 'parked'"
    )
    daemons = [await start(world, **SETTINGS) for _ in range(2)]

    def warned():
        events = [event for daemon in daemons for event in daemon.events("consent.warned")]
        return Counter((event["open_id"], event["within_days"]) for event in events)

    async def said():
        return warned().total() >= 2

    for daemon in daemons:
        await daemon.until_event("daemon.started")
    await eventually(said, "two warnings")
    # Either may still be about to look for the first time: what follows is not for it to find.
    for daemon in daemons:
        assert await daemon.stopped() == 0
    assert await consents_ending(pool) == []
    # Time goes by; the generation keeps it from looking like a new authorization.
    await pool.execute(
        "UPDATE refresher.accounts SET tokens_generation = tokens_generation + 1,"
        " refresh_token_expires_at = refresh_token_expires_at - interval '8 days'"
        " WHERE open_id = 'near'"
    )
    ((open_id, _, days),) = await consents_ending(pool)
    assert (open_id, days) == ("near", 3)
    assert await consents_ending(pool) == []
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token = 'rft.another',"
        " refresh_token_expires_at = now() + interval '13 days' WHERE open_id = 'near'"
    )
    daemons.append(await start(world, **SETTINGS))
    await daemons[-1].until_event("consent.warned")
    assert warned() == {("near", 14): 2, ("nearer", 3): 1}


async def test_a_refresh_alone_does_not_repeat_a_warning(pool, begun):
    """The consent ends when it would have ended anyway; one that was prolonged is another."""
    store, claim, used, _ = begun
    await pool.execute(
        "UPDATE refresher.accounts SET refresh_token_expires_at = now() + interval '10 days'"
    )
    assert len(await consents_ending(pool)) == 1
    ten_days = replace(NEW, refresh_token_lives_seconds=864_000.0)
    assert await store.replace(claim, used, ten_days, 3600.0)
    assert await consents_ending(pool) == []
