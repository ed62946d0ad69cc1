"""Answers of every shape that the field has shown, over a real socket, and what becomes of them.

The table of what people met; a shape that is no answer must be one to be tried again, and none may
cost a cover or a consent.
"""

import gzip
import json
import time
import zlib
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from aiohttp import web

from refresher.domain.credentials import AppCredentials
from refresher.domain.errors import (
    AccessTokenRefused,
    DailyQuotaSpent,
    GrantRefused,
    QueryRefused,
    Throttled,
    TokenRequestFailed,
    UpstreamError,
    UpstreamFailed,
)
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.tiktok.client import LARGEST_ANSWER_BYTES, opened
from refresher.tiktok.wire import LOG_ID_HEADER
from tests.conftest import eventually

TOKEN = "act.ana!4523.va"
REFRESH_TOKEN = "rft.ana!4523.va"
APP = AppCredentials("key-of-the-app", "secret-of-the-app")
IDS = [str(7_077_642_457_847_994_444 + n) for n in range(20)]
HUGE = [str(98_765_432_109_876_543_210 + n) for n in range(20)]
OK = {"code": "ok", "message": "", "log_id": "2026"}
LONG = 30.0


def cover(video_id):
    return f"https://example.com/{video_id}?x-expires={int(time.time()) + 86_400}"


def videos(ids, name="id", read=str):
    return [{name: read(video_id), "cover_image_url": cover(video_id)} for video_id in ids]


def encoded(data, error=OK):
    return json.dumps({"data": data, "error": error}).encode()


def answer(body, status=200, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    all_headers = {"Content-Type": "application/json", LOG_ID_HEADER: "20260828AB", **names}
    return web.Response(body=body, status=status, headers=all_headers)


def error(status, code, message="", **headers):
    told = {"code": code, "message": message, "log_id": "2026"}
    return answer(encoded({}, told), status, **headers)


@asynccontextmanager
async def asked():
    """An emulator that knows Ana and her refresh token, and a client of it."""
    emulator = Emulator(EmulatorOptions(client_key=APP.key, client_secret=APP.secret))
    emulator.add_account("ana", TOKEN, refresh_token=REFRESH_TOKEN)
    async with emulator.serving() as base_url, opened(base_url, 4, APP) as client:
        yield emulator, client


async def failed(asking):
    with pytest.raises(UpstreamError) as raised:
        await asking
    return raised.value


# --- Answers that are good ---

ALL_MISSING = {
    "videos-empty": b'{"data":{"videos":[]},"error":{"code":"ok"}}',
    "videos-null": b'{"data":{"videos":null},"error":{"code":"ok"}}',
    "videos-left-out": b'{"data":{"cursor":0,"has_more":false},"error":{"code":"ok"}}',
    "data-empty": b'{"data":{},"error":{"code":"ok"}}',
    "data-null": b'{"data":null,"error":{"code":"ok"}}',
    "data-left-out": b'{"error":{"code":"ok","message":"","log_id":"2026"}}',
    "upper-case": b'{"data":{"videos":null},"error":{"code":"OK"}}',
}
LATIN = '{"data":{"videos":[%s]},"error":{"code":"ok"}}' % ",".join(  # noqa: UP031 - braces
    f'{{"id":{video_id},"title":"caf\xe9","cover_image_url":"{cover(video_id)}"}}'
    for video_id in IDS
)
ALL_COVERED = {
    "usual": lambda ids: answer(encoded({"videos": videos(ids)})),
    "numbers": lambda ids: answer(encoded({"videos": videos(ids, read=int)})),
    "one-number": lambda ids: answer(
        encoded({"videos": [*videos(ids[:1], read=int), *videos(ids[1:])]})
    ),
    "upper-case": lambda ids: answer(encoded({"videos": videos(ids)}, {**OK, "code": "OK"})),
    "mixed-case": lambda ids: answer(encoded({"videos": videos(ids)}, {**OK, "code": "Ok"})),
    "201": lambda ids: answer(encoded({"videos": videos(ids)}), 201),
    "203": lambda ids: answer(encoded({"videos": videos(ids)}), 203),
    "gzip": lambda ids: answer(
        gzip.compress(encoded({"videos": videos(ids)})), Content_Encoding="gzip"
    ),
    "gzip-in-two": lambda ids: answer(
        gzip.compress(encoded({"videos": videos(ids)})[:99])
        + gzip.compress(encoded({"videos": videos(ids)})[99:]),
        Content_Encoding="GZIP",
    ),
    "deflate": lambda ids: answer(
        zlib.compress(encoded({"videos": videos(ids)})), Content_Encoding="deflate"
    ),
    "identity": lambda ids: answer(encoded({"videos": videos(ids)}), Content_Encoding="identity"),
    "text-plain": lambda ids: answer(
        encoded({"videos": videos(ids)}), Content_Type="text/plain; charset=latin-1"
    ),
    "also-others": lambda ids: answer(encoded({"videos": videos([*ids, "1", "2"])})),
}


@pytest.mark.parametrize("body", ALL_MISSING.values(), ids=ALL_MISSING)
async def test_nothing_under_ok_is_all_missing(body):
    """Whatever way an empty list is written, also where fewer than twenty were asked for."""
    async with asked() as (emulator, client):
        emulator.answer_with = lambda _: answer(body)
        assert await client.query(TOKEN, IDS, LONG) == {}
        assert await client.query(TOKEN, IDS[:3], LONG) == {}


@pytest.mark.parametrize("ids", [IDS, HUGE], ids=["63-bits", "more"])
@pytest.mark.parametrize("shape", ALL_COVERED)
async def test_other_shapes_of_a_good_answer(shape, ids):
    """Every cover is read, by every digit of its ID."""
    async with asked() as (emulator, client):
        emulator.answer_with = lambda query: ALL_COVERED[shape](query.video_ids)
        covers = await client.query(TOKEN, ids, LONG)
        assert {video_id: covers[video_id].split("?")[0] for video_id in ids} == {
            video_id: f"https://example.com/{video_id}" for video_id in ids
        }


async def test_a_byte_that_is_no_text_beside_numbers():
    """Neither of the two oddities keeps the other from being read."""
    async with asked() as (emulator, client):
        emulator.answer_with = lambda _: answer(LATIN.encode("latin-1"))
        assert set(await client.query(TOKEN, IDS, LONG)) == set(IDS)


# --- Answers that are none ---

MALFORMED = {
    "renamed": lambda ids: answer(encoded({"videos": videos(ids, name="video_id")})),
    "floats": lambda ids: answer(encoded({"videos": videos(ids, read=float)})),
    "below-0": lambda ids: answer(encoded({"videos": videos(ids, read=lambda it: -int(it))})),
    "booleans": lambda ids: answer(encoded({"videos": videos(ids, read=bool)})),
    "nulls": lambda ids: answer(encoded({"videos": [None for _ in ids]})),
    "empty-ids": lambda ids: answer(encoded({"videos": videos(ids, read=lambda _: "")})),
    "texts": lambda ids: answer(encoded({"videos": list(ids)})),
    "others": lambda ids: answer(encoded({"videos": videos([f"{it}0" for it in ids])})),
    "other-numbers": lambda ids: answer(
        encoded({"videos": videos(ids, read=lambda it: int(it) + 1_000)})
    ),
    "videos-no-list": lambda _: answer(b'{"data":{"videos":{}},"error":{"code":"ok"}}'),
    "data-a-list": lambda _: answer(b'{"data":[],"error":{"code":"ok"}}'),
    "no-error": lambda _: answer(b'{"data":{"videos":null}}'),
    "error-null": lambda _: answer(b'{"data":{"videos":null},"error":null}'),
    "no-code": lambda _: answer(b'{"data":{"videos":null},"error":{}}'),
    "bare-ok": lambda _: answer(b'{"code":"ok"}'),
    "html": lambda _: answer(b"<html>Log in</html>", Content_Type="text/html"),
    "204": lambda _: answer(None, 204),
    "206-cut": lambda ids: answer(encoded({"videos": videos(ids)})[:100], 206),
}


@pytest.mark.parametrize("shape", MALFORMED)
async def test_what_could_be_taken_for_missing_is_malformed(shape):
    """Counted missing, all twenty would be gone in the end: it is asked again instead."""
    async with asked() as (emulator, client):
        emulator.answer_with = lambda query: MALFORMED[shape](query.video_ids)
        told = await failed(client.query(TOKEN, IDS, LONG))
        assert (type(told), told.code) == (UpstreamFailed, "malformed_answer")
        assert told.status // 100 == 2
        assert told.log_id == "20260828AB"


async def test_a_malformed_answer_says_what_was_wrong_with_its_videos():
    """Nobody could tell from the code alone."""
    async with asked() as (emulator, client):
        for shape, detail in {
            "renamed": "no video has a usable id",
            "others": "none of the videos was asked for",
        }.items():
            emulator.answer_with = lambda query, shape=shape: MALFORMED[shape](query.video_ids)
            assert (await failed(client.query(TOKEN, IDS, LONG))).detail == detail


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", b"\x0b\x02\x80{}\x03"),
        ("zstd", b"(\xb5/\xfd\x04\x00\x11\x00\x00{}"),
        ("compress", b"\x1f\x9d\x90{}"),
        ("gzip, br", b"\x0b\x02\x80{}\x03"),
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(b"{}")[:-9]),
    ],
    ids=["br", "zstd", "compress", "two", "no-gzip", "cut-gzip"],
)
@pytest.mark.parametrize("status", [200, 401, 502])
async def test_an_encoding_that_nobody_asked_for_is_named(encoding, body, status):
    """With TikTok's log ID, and it parks nobody: what it says is not known."""
    async with asked() as (emulator, client):
        emulator.answer_with = lambda _: answer(body, status, Content_Encoding=encoding)
        emulator.answer_token_with = lambda _: answer(body, status, Content_Encoding=encoding)
        for asking in (client.query(TOKEN, IDS, LONG), client.renew_token(REFRESH_TOKEN, LONG)):
            told = await failed(asking)
            assert (type(told), told.code) == (UpstreamFailed, "unreadable_encoding")
            assert (told.status, told.detail, told.log_id) == (status, encoding, "20260828AB")


async def test_a_429_is_one_in_any_encoding():
    """Its status speaks for itself."""
    async with asked() as (emulator, client):
        emulator.answer_with = lambda _: answer(b"?", 429, Content_Encoding="br", Retry_After="9")
        told = await failed(client.query(TOKEN, IDS, LONG))
        assert (type(told), told.retry_after_seconds) == (Throttled, 9.0)


async def test_a_small_body_that_is_huge_inside_is_given_up():
    """It is not unpacked to its end."""
    bomb = gzip.compress(b" " * (LARGEST_ANSWER_BYTES + 1))
    async with asked() as (emulator, client):
        emulator.answer_with = lambda _: answer(bomb, Content_Encoding="gzip")
        assert (await failed(client.query(TOKEN, IDS, LONG))).code == "answer_too_large"
        largest = b'{"error":{"code":"ok"}}'.ljust(LARGEST_ANSWER_BYTES)
        emulator.answer_with = lambda _: answer(gzip.compress(largest), Content_Encoding="gzip")
        assert await client.query(TOKEN, IDS, LONG) == {}


async def test_only_what_can_be_read_is_asked_for():
    """Whatever libraries lie about on the machine."""
    heads = []

    async def handle(request):
        heads.append(request.headers["Accept-Encoding"])
        return answer(encoded({"videos": videos(IDS)}))

    app = web.Application()
    app.router.add_post("/v2/video/query/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with opened(f"http://127.0.0.1:{runner.addresses[0][1]}", 1) as client:
        await client.query(TOKEN, IDS, LONG)
    await runner.cleanup()
    assert heads == ["gzip"]


# --- Refusals ---

MIDNIGHT = "Sat, 28 Nov 2026 16:00:00 GMT"


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (lambda: error(400, "invalid_params"), QueryRefused),
        (lambda: error(400, "invalid_param"), QueryRefused),
        (lambda: error(400, "invalid_request"), QueryRefused),
        (lambda: error(200, "Invalid_Request"), QueryRefused),
        (lambda: error(401, "Access_Token_Invalid"), AccessTokenRefused),
        (lambda: error(429, "rate_limit_exceeded"), Throttled),
        (lambda: error(429, "Rate_Limit_Exceeded", "Please try again later."), Throttled),
        (lambda: error(429, "daily_quota_limit_exceeded"), DailyQuotaSpent),
        (lambda: error(200, "daily_quota_limit_exceeded"), DailyQuotaSpent),
        (lambda: error(403, "reached_daily_limit_of_user"), DailyQuotaSpent),
        (lambda: error(400, "DAILY_LIMIT_REACHED"), DailyQuotaSpent),
        (lambda: error(429, "rate_limit_exceeded", "1000 requests per day."), DailyQuotaSpent),
        (lambda: error(200, "spam_risk", "The daily quota is reached."), DailyQuotaSpent),
        (lambda: error(200, "too_many", "Too many requests in 24 hours."), DailyQuotaSpent),
        (lambda: error(429, "slow_down", "Enough for today!"), DailyQuotaSpent),
        (lambda: error(500, "internal_error", "Come back another day."), UpstreamFailed),
        (lambda: error(403, "user_banned", "Birthday limits."), UpstreamFailed),
        (lambda: error(401, "access_token_invalid", "Daily limit."), AccessTokenRefused),
    ],
)
async def test_refusals_by_their_words(response, kind):
    """A known word counts in any case; a day's quota is one by code or by message."""
    async with asked() as (emulator, client):
        emulator.answer_with = lambda _: response()
        assert type(await failed(client.query(TOKEN, IDS, LONG))) is kind


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "daily_quota_limit_exceeded"])
async def test_a_date_to_come_back_at(code):
    """By the clock of the reply, which may be years from ours."""
    async with asked() as (emulator, client):
        emulator.answer_with = lambda _: error(
            429, code, Retry_After=MIDNIGHT, Date="Sat, 28 Nov 2026 15:58:30 GMT"
        )
        assert (await failed(client.query(TOKEN, IDS, LONG))).retry_after_seconds == 90.0
        emulator.answer_with = lambda _: error(
            429, code, Retry_After=formatdate(time.time() + 600, usegmt=True)
        )
        told = await failed(client.query(TOKEN, IDS, LONG))
        assert 500 < told.retry_after_seconds <= 601


# --- Pairs of tokens ---

PAIR = {
    "access_token": "act.new!4523.va",
    "expires_in": 7200,
    "open_id": "ana",
    "refresh_expires_in": 15_552_000,
    "refresh_token": "rft.new!4523.va",
    "scope": "user.info.basic,video.list",
    "token_type": "Bearer",
}
ODD_BYTES = json.dumps(PAIR).encode()[:-1] + b',"nickname":"caf\xe9","scope":"\xe9"}'
PAIRS = {
    "flat": lambda: answer(json.dumps(PAIR).encode()),
    "under-data": lambda: answer(json.dumps({"data": PAIR, "message": "success"}).encode()),
    "under-data-beside-ok": lambda: answer(json.dumps({"data": PAIR, "error": OK}).encode()),
    "beside-ok": lambda: answer(json.dumps({**PAIR, "error": OK}).encode()),
    "beside-upper-case-ok": lambda: answer(json.dumps({**PAIR, "error": {"code": "OK"}}).encode()),
    "beside-the-word-ok": lambda: answer(json.dumps({**PAIR, "error": "ok"}).encode()),
    "beside-nothing": lambda: answer(json.dumps({**PAIR, "error": ""}).encode()),
    "beside-null": lambda: answer(json.dumps({**PAIR, "error": None}).encode()),
    "beside-0": lambda: answer(json.dumps({**PAIR, "error": 0, "data": None}).encode()),
    "beside-no-code": lambda: answer(json.dumps({**PAIR, "error": {}}).encode()),
    "beside-an-error": lambda: answer(json.dumps({**PAIR, "error": "invalid_grant"}).encode()),
    "beside-an-error-object": lambda: answer(
        json.dumps({"data": PAIR, "error": {"code": "internal_error"}}).encode()
    ),
    "201": lambda: answer(json.dumps(PAIR).encode(), 201),
    "400": lambda: answer(json.dumps(PAIR).encode(), 400),
    "500": lambda: answer(json.dumps(PAIR).encode(), 500),
    "429": lambda: answer(json.dumps(PAIR).encode(), 429),
    "gzip": lambda: answer(gzip.compress(json.dumps(PAIR).encode()), Content_Encoding="gzip"),
    "mark": lambda: answer(b"\xef\xbb\xbf" + json.dumps(PAIR).encode()),
    "odd-bytes": lambda: answer(ODD_BYTES),
    "html-type": lambda: answer(json.dumps(PAIR).encode(), Content_Type="text/html"),
}


@pytest.mark.parametrize("shape", PAIRS)
async def test_a_pair_is_read_whatever_lies_around_it(shape):
    """Thrown away, it could not be had again: its user would have to authorize the app anew."""
    async with asked() as (emulator, client):
        emulator.answer_token_with = lambda _: PAIRS[shape]()
        pair = await client.renew_token(REFRESH_TOKEN, LONG)
    assert (pair.access_token, pair.refresh_token) == (PAIR["access_token"], PAIR["refresh_token"])
    assert (pair.access_token_lives_seconds, pair.open_id) == (7200.0, "ana")
    assert pair.refresh_token_lives_seconds == 15_552_000.0
    assert pair.scope == (None if shape == "odd-bytes" else PAIR["scope"])


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ({"error": "invalid_grant", "data": {}}, GrantRefused, "invalid_grant"),
        ({"data": {"error": "invalid_grant"}}, GrantRefused, "invalid_grant"),
        ({**PAIR, "refresh_token": "", "error": "invalid_grant"}, GrantRefused, "invalid_grant"),
        ({"data": PAIR | {"access_token": ""}, "error": OK}, UpstreamFailed, "malformed_answer"),
        ({"error": "daily_quota_limit_exceeded"}, DailyQuotaSpent, "daily_quota_limit_exceeded"),
        (
            {"error": "slow_down", "error_description": "The daily quota is spent."},
            DailyQuotaSpent,
            "slow_down",
        ),
        (
            {"error": "server_error", "error_description": ["day"]},
            TokenRequestFailed,
            "server_error",
        ),
        ({"error": {"code": "internal_error"}}, UpstreamFailed, "internal_error"),
        ({"error": 10_010}, UpstreamFailed, "no_error_object"),
    ],
)
async def test_errors_of_the_token_endpoint_by_their_words(body, kind, code):
    """Without a pair: what it says counts, wherever it says it."""
    async with asked() as (emulator, client):
        emulator.answer_token_with = lambda _: answer(json.dumps(body).encode())
        told = await failed(client.renew_token(REFRESH_TOKEN, LONG))
    assert (type(told), told.code) == (kind, code)


NOW = 1_795_881_600  # Sat, 28 Nov 2026 16:00:00 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (7200, 7200.0),
        ("7200", 7200.0),
        (15_552_000, 15_552_000.0),
        (NOW + 7200, 7200.0),
        (str(NOW + 7200), 7200.0),
        ((NOW + 7200) * 1000, 7200.0),
        (float(NOW) + 0.5, 0.5),
        (NOW - 1, None),
        (NOW * 1_000_000, None),
        (10**400, None),
    ],
)
async def test_a_lifetime_that_can_only_be_a_unix_time_is_one(value, seconds):
    """By the clock of the reply; what is none of both is as good as none."""
    body = PAIR | {"expires_in": value, "refresh_expires_in": value}
    async with asked() as (emulator, client):
        emulator.answer_token_with = lambda _: answer(json.dumps(body).encode(), Date=MIDNIGHT)
        pair = await client.renew_token(REFRESH_TOKEN, LONG)
    assert pair.refresh_token_lives_seconds == seconds
    assert pair.access_token_lives_seconds == (seconds or 7200.0)


# --- What becomes of the videos ---

OUTCOMES = {
    "null": (lambda _: answer(ALL_MISSING["videos-null"]), "missing"),
    "left-out": (lambda _: answer(ALL_MISSING["data-left-out"]), "missing"),
    "numbers": (ALL_COVERED["numbers"], "valid"),
    "201": (ALL_COVERED["201"], "valid"),
    "gzip": (ALL_COVERED["gzip"], "valid"),
    "renamed": (MALFORMED["renamed"], "due"),
    "others": (MALFORMED["others"], "due"),
    "br": (lambda _: answer(b"?", Content_Encoding="br"), "due"),
}


async def standings(world, open_id):
    """How the videos of an account stand: how many are valid, missing, or due as they were."""
    row = await world.pool.fetchrow(
        "SELECT count(*) FILTER (WHERE cover_expires_at > now()) AS valid,"
        " count(*) FILTER (WHERE missing_since IS NOT NULL) AS missing,"
        " count(*) FILTER (WHERE misses = 0 AND cover_image_url IS NULL) AS due"
        " FROM refresher.videos WHERE open_id = $1",
        open_id,
    )
    return {name: number for name, number in row.items() if number}


async def test_what_becomes_of_the_videos(serve, start):
    """All covered, all missing, or left as they were and asked for again: nothing in between."""
    world = await serve()
    for name in OUTCOMES:
        await world.add_account(name, 20)
    world.emulator.answer_with = lambda query: OUTCOMES[query.open_id][0](query.video_ids)
    await start(world)

    async def asked_often():
        asked = [arrival.open_id for arrival in list(world.emulator.record)]
        return all(
            asked.count(name) >= (2 if outcome == "due" else 1)
            for name, (_, outcome) in OUTCOMES.items()
        )

    async def settled():
        return all([await standings(world, name) == {it: 20} for name, (_, it) in OUTCOMES.items()])

    await eventually(asked_often, "every account to be asked, the failed ones again")
    await eventually(settled, "all covered, all missing, or all as they were")


@pytest.mark.parametrize("code", ["invalid_param", "invalid_request"])
async def test_a_bad_id_is_found_under_other_spellings(serve, start, code):
    """One of forty costs its own cover and no other."""
    world = await serve()
    ids = await world.add_account("ana", 40)
    world.emulator.answer_with = lambda query: (
        error(400, code) if ids[7] in query.video_ids else None
    )
    await start(world)
    await world.until_valid(39)

    async def found():
        refused = "SELECT video_id, refusal FROM refresher.videos WHERE refusal IS NOT NULL"
        return [tuple(row) for row in await world.pool.fetch(refused)] == [(ids[7], code)]

    await eventually(found, "the bad ID to stand alone")


# --- Accounts under another of TikTok's IDs ---

SETTINGS = {
    "tiktok_client_key": APP.key,
    "tiktok_client_secret": APP.secret,
    "poll_seconds": 0.2,
}


async def authorize(world, stored, known, videos=3):
    """An account that the application has stored under another ID than TikTok knows it by."""
    access, refresh = f"act.{known}-1", f"rft.{known}-1"
    world.emulator.add_account(
        known, access, access_token_expires_at=time.time() + 4, refresh_token=refresh
    )
    await world.pool.execute(
        "INSERT INTO refresher.accounts (open_id, access_token, access_token_expires_at,"
        " refresh_token, refresh_token_expires_at)"
        " VALUES ($1, $2, now() + interval '4 s', $3, now() + interval '1 year')",
        stored,
        access,
        refresh,
    )
    for video_id in await world.add_videos(stored, videos, missing=True):
        world.emulator.add_video(known, video_id)


async def test_accounts_under_a_union_id_go_on(serve, start, pool):
    """Each new pair is stored, through several refreshes by several replicas; said once for each."""
    world = await serve(access_token_ttl_seconds=4, cover_ttl=4)
    for name in ("ana", "ben"):
        await authorize(world, f"union-{name}", f"open-{name}")
    await authorize(world, "cid", "cid")
    daemons = [await start(world, **SETTINGS) for _ in range(2)]

    def refreshes(open_id):
        record = list(world.emulator.token_record)
        return [arrival for arrival in record if arrival.open_id == open_id]

    async def refreshed_often():
        return all(len(refreshes(name)) >= 3 for name in ("open-ana", "open-ben", "cid"))

    await eventually(refreshed_often, "three refreshes of each")
    for daemon in daemons:
        assert await daemon.stopped() == 0
    daemons.append(await start(world, **SETTINGS))
    before = len(refreshes("open-ana"))

    async def refreshed_again():
        return len(refreshes("open-ana")) > before

    await eventually(refreshed_again, "one more refresh, by a process of its own")
    await world.until_valid(9)
    assert await daemons[-1].stopped() == 0
    said = [event for daemon in daemons for event in daemon.events("account.misnamed")]
    assert sorted((event["open_id"], event["token_open_id"]) for event in said) == [
        ("union-ana", "open-ana"),
        ("union-ben", "open-ben"),
    ]
    assert not any(daemon.events("account.parked") for daemon in daemons)
    assert not any(arrival.used_before for arrival in world.emulator.token_record)
    rows = await pool.fetch(
        "SELECT open_id, state, token_open_id, refresh_token FROM refresher.accounts"
        " ORDER BY open_id"
    )
    assert [tuple(row)[:3] for row in rows] == [
        ("cid", "active", None),
        ("union-ana", "active", "open-ana"),
        ("union-ben", "active", "open-ben"),
    ]
    for row, known in zip(rows, ("cid", "open-ana", "open-ben"), strict=True):
        assert world.emulator.holds_refresh_token(known, row["refresh_token"])


async def test_a_pair_in_another_shape_is_used(serve, start, pool):
    """Nested, beside an error object, with a Unix time: stored, and the covers come with it."""
    world = await serve()
    shapes = {
        "nested": lambda pair: {"data": pair, "message": "success"},
        "beside": lambda pair: {**pair, "error": OK},
        "unix": lambda pair: {**pair, "expires_in": int(time.time()) + 7200},
        "error": lambda pair: {**pair, "error": "invalid_grant"},
    }
    for name in shapes:
        await authorize(world, name, name)
        world.emulator.revoke_access_token(name)

    def renewed(form):
        name = form["refresh_token"].removeprefix("rft.").removesuffix("-1")
        pair = PAIR | {"access_token": f"act.{name}-2", "refresh_token": f"rft.{name}-2"}
        world.emulator.add_account(name, f"act.{name}-2", refresh_token=f"rft.{name}-2")
        return web.json_response(shapes[name](pair | {"open_id": name}))

    world.emulator.answer_token_with = renewed
    daemon = await start(world, **SETTINGS)
    await world.until_valid(3 * len(shapes))
    assert await daemon.stopped() == 0
    rows = await pool.fetch(
        "SELECT open_id, state, refresh_token, access_token_expires_at - now() AS left"
        " FROM refresher.accounts"
    )
    for row in rows:
        assert (row["state"], row["refresh_token"]) == ("active", f"rft.{row['open_id']}-2")
        assert 6000 < row["left"].total_seconds() <= 7200
