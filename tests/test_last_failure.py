"""The last failure of an account is kept in its row."""

import pytest
from aiohttp import web

from refresher.domain.model import LastFailure, Release
from refresher.domain.pacing import Pace
from refresher.postgres.accounts import Accounts
from tests.conftest import eventually
from tests.test_tokens import authorize

CREDENTIALS = {"tiktok_client_key": "key", "tiktok_client_secret": "secret"}
FAILURE = LastFailure("access_token_invalid", 401, "2026")


def told(status, code, message=""):
    return web.json_response(
        {"data": {}, "error": {"code": code, "message": message, "log_id": f"log-{code}"}},
        status=status,
    )


#: By account: how TikTok answers its queries.
ANSWERS = {
    "refused": lambda: told(401, "access_token_invalid"),
    "scope": lambda: told(401, "scope_not_authorized"),
    "minute": lambda: told(429, "rate_limit_exceeded"),
    "day": lambda: told(429, "rate_limit_exceeded", "the daily quota is spent"),
    "failed": lambda: told(500, "internal_error"),
    "unlisted": lambda: told(403, "of_tomorrow"),
    "gateway": lambda: web.Response(status=502, text="<html>"),
    "malformed": lambda: web.Response(text="{"),
    "silent": lambda: "hang",
    "cut": lambda: "cut",
}
KEPT = {
    "refused": ("access_token_invalid", 401, "log-access_token_invalid"),
    "scope": ("scope_not_authorized", 401, "log-scope_not_authorized"),
    "minute": ("rate_limit_exceeded", 429, "log-rate_limit_exceeded"),
    "day": ("rate_limit_exceeded", 429, "log-rate_limit_exceeded"),
    "failed": ("internal_error", 500, "log-internal_error"),
    "unlisted": ("of_tomorrow", 403, "log-of_tomorrow"),
    "gateway": ("no_error_object", 502, None),
    "malformed": ("malformed_answer", 200, None),
    "silent": ("timed_out", None, None),
    "cut": ("connection_failed", None, None),
    "well": (None, None, None),
    "no-token": ("no_usable_access_token", None, None),
}


async def kept(pool):
    rows = await pool.fetch(
        "SELECT open_id, last_failure_code, last_failure_http_status, last_failure_log_id"
        " FROM refresher.accounts WHERE last_failure_at > now() - interval '1 minute'"
    )
    return {row["open_id"]: tuple(row)[1:] for row in rows}


async def until_kept(pool, expected):
    async def are_kept():
        return (await kept(pool)) == expected

    await eventually(are_kept, f"{expected}")


async def test_every_kind_of_failure_is_kept(serve, start, pool):
    """The code, ours where none came, with the status and log_id; nothing for who is well."""
    world = await serve()
    for name in KEPT:
        await world.add_account(name, videos=1)
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = NULL WHERE open_id = 'no-token'"
    )
    world.emulator.answer_with = lambda query: ANSWERS.get(query.open_id, lambda: None)()
    await start(world, request_timeout_seconds=1, token_management="external")
    await until_kept(pool, {name: values for name, values in KEPT.items() if values[0]})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda: web.json_response(
            {"error": "invalid_grant", "error_description": "", "log_id": "2026"}, status=400
        ), ("invalid_grant", 400, "2026")),
        (lambda: web.json_response(
            {"error": "invalid_client", "error_description": "", "log_id": "2026"}, status=401
        ), ("invalid_client", 401, "2026")),
        (lambda: web.Response(status=503), ("no_error_object", 503, None)),
    ],
    ids=["grant", "client", "failed"],
)  # fmt: skip
async def test_failures_of_token_requests_are_kept(serve, start, pool, answer, expected):
    """Also where no query was sent at all."""
    world = await serve()
    await authorize(world, "ana", lives=-60)
    world.emulator.answer_token_with = lambda _: answer()
    await start(world, **CREDENTIALS)
    await until_kept(pool, {"ana": expected})


async def test_a_token_request_that_is_not_sent_is_no_failure(serve, start, pool):
    """Once the app credentials are refused, other accounts wait for better ones, and send nothing."""
    world = await serve()
    names = ("ana", "bob", "carol", "dora")
    for name in names:
        await authorize(world, name, lives=-60)
    world.emulator.answer_token_with = lambda _: web.json_response(
        {"error": "invalid_client", "error_description": "", "log_id": "2026"}, status=401
    )
    await start(world, concurrency=1, **CREDENTIALS)

    async def all_wait():
        return len(names) == await pool.fetchval(
            "SELECT count(*) FROM refresher.accounts WHERE token_failures > 0"
            " AND token_due_at > now() + interval '1 minute'"
        )

    await eventually(all_wait, "all to wait")
    sent = {arrival.open_id for arrival in world.emulator.token_record}
    assert len(sent) < len(names)
    assert await kept(pool) == dict.fromkeys(sent, ("invalid_client", 401, "2026"))


async def test_what_is_not_sent_makes_no_back_off_longer(pool):
    """It is marked as a wait, once; a failed token request counts each time."""
    await pool.execute("INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'a')")
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('ana', 'v1')")
    replica = Accounts(pool, replica="a", pace=Pace(600, 0, lease_seconds=60))
    put_off = []
    for failure in (None, None, FAILURE, None, FAILURE):
        (claim,) = await replica.claim(10)
        waits = Release(
            claim.open_id,
            claim.lease_epoch,
            claim.token.generation,
            token_retry_seconds=300,
            last_failure=failure,
        )
        await replica.release([waits])
        put_off.append(await pool.fetchval("SELECT token_failures FROM refresher.accounts"))
    assert put_off == [1, 1, 2, 2, 3]


async def test_it_stays_when_the_account_has_recovered(serve, start, pool):
    """The question "what was it?" comes afterwards."""
    world = await serve()
    await world.add_account("ana", videos=1)
    world.emulator.answer_with = lambda _: told(500, "internal_error")
    await start(world)
    expected = {"ana": ("internal_error", 500, "log-internal_error")}
    await until_kept(pool, expected)
    world.emulator.answer_with = None
    await world.until_valid(1)
    await world.until_no_leases()
    assert await kept(pool) == expected


async def test_only_a_failure_writes_it_and_the_row_stays_hot(pool):
    """A good release leaves what is stored; no index has to follow."""
    await pool.execute("INSERT INTO refresher.accounts (open_id, access_token) VALUES ('ana', 'x')")
    replica = Accounts(pool, replica="a", pace=Pace(600, 0, lease_seconds=60))
    for failure in (FAILURE, None):
        (claim,) = await replica.claim(1)
        (released,) = await replica.release(
            [Release(claim.open_id, claim.lease_epoch, last_failure=failure)]
        )
        assert released
        await pool.execute("UPDATE refresher.accounts SET wake_at = now()")
    assert await kept(pool) == {"ana": ("access_token_invalid", 401, "2026")}
    indexed = await pool.fetchval(
        "SELECT count(*) FROM pg_index JOIN pg_attribute ON attrelid = indrelid"
        " WHERE indrelid = 'refresher.accounts'::regclass AND attnum = ANY (indkey)"
        " AND attname LIKE 'last_failure%'"
    )
    assert indexed == 0
