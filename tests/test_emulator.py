import asyncio
import dataclasses
import hashlib
import re
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from inspect import signature
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from refresher.cli.demo import emulator as emulator_command
from refresher.demo import SAMPLE_ACCOUNTS, SAMPLE_VIDEOS, populate
from refresher.emulator.covers import COVER_JPEG, CoverSigner
from refresher.emulator.grants import SlidingWindow
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.record import Arrival, token_digest
from refresher.emulator.requests import read_body, read_fields
from refresher.emulator.server import Emulator
from refresher.emulator.videos import video_of
from refresher.tiktok.wire import (
    LOG_ID_HEADER,
    MAX_VIDEO_IDS,
    QUERY_PATH,
    TOKEN_PATH,
    VIDEO_FIELDS,
)

NOW = 1_790_000_123.5
ANA_IDS = [str(7_400_000_000_000_000_000 + n) for n in range(30)]
BEN_ID = "7499999999999999999"


class Clock:
    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        return self.now


class Client:
    """The calls of an application, with every part of a request open to being wrong."""

    def __init__(self, session, base_url):
        self.session = session
        self.base_url = base_url

    async def query(
        self,
        video_ids=ANA_IDS[:2],
        *,
        token="act.ana",
        fields="id,cover_image_url",
        method="POST",
        content_type="application/json",
        body=None,
        headers=None,
    ):
        if body is None:
            body = msgspec.json.encode({"filters": {"video_ids": video_ids}})
        if headers is None:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
        url = f"{self.base_url}{QUERY_PATH}"
        params = None if fields is None else {"fields": fields}
        return await self.send(method, url, params=params, data=body, headers=headers)

    async def videos(self, *args, **kwargs):
        status, _, body = await self.query(*args, **kwargs)
        assert status == 200
        return msgspec.json.decode(body)["data"]["videos"]

    async def error_code(self, *args, **kwargs):
        status, _, body = await self.query(*args, **kwargs)
        return status, msgspec.json.decode(body)["error"]["code"]

    async def refresh(self, *args, **changes):
        _, _, body = await self.token(*args, **changes)
        return msgspec.json.decode(body)

    async def token(self, refresh_token="rft.ana", **changes):
        form = {
            "client_key": "key",
            "client_secret": "secret",
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
        }
        return await self.send("POST", f"{self.base_url}{TOKEN_PATH}", data=form | changes)

    async def get(self, raw_url):
        return await self.send("GET", URL(raw_url, encoded=True))

    async def send(self, method, url, **kwargs):
        async with self.session.request(method, url, **kwargs) as response:
            return response.status, response.headers, await response.read()


@asynccontextmanager
async def served(clock=None, **options):
    """An emulator with Ana's 30 videos and Ben's one, and a client of it."""
    emulator = Emulator(EmulatorOptions(**options), clock=clock or Clock())
    emulator.add_account("ana", "act.ana", refresh_token="rft.ana")
    emulator.add_account("ben", "act.ben")
    for video_id in ANA_IDS:
        emulator.add_video("ana", video_id)
    emulator.add_video("ben", BEN_ID)
    async with emulator.serving() as base_url, aiohttp.ClientSession() as session:
        yield emulator, Client(session, base_url)


# --- Query ---


async def test_answers_the_documented_envelope():
    """A good query gets its videos in TikTok's envelope, with one log ID in body and header."""
    async with served() as (_, client):
        status, headers, body = await client.query(ANA_IDS[:1], fields="id")
    answer = msgspec.json.decode(body)
    assert status == 200
    assert answer["data"] == {"videos": [{"id": ANA_IDS[0]}], "cursor": 0, "has_more": False}
    assert (answer["error"]["code"], answer["error"]["message"]) == ("ok", "")
    assert answer["error"]["log_id"] == headers[LOG_ID_HEADER]
    assert re.fullmatch(r"20260921141523[0-9A-F]{20}", headers[LOG_ID_HEADER])


async def test_all_fifteen_fields_have_plausible_and_stable_values():
    """Every documented field can be selected and says the same in every answer."""
    async with served() as (_, client):
        first, second = [
            await client.videos(ANA_IDS[:1], fields=",".join(VIDEO_FIELDS)) for _ in range(2)
        ]
    assert first == second
    assert tuple(first[0]) == VIDEO_FIELDS
    texts = {name for name, value in first[0].items() if isinstance(value, str)}
    numbers = {name for name, value in first[0].items() if type(value) is int and value >= 0}
    assert numbers == {"create_time", "duration", "height", "width"} | {
        f"{thing}_count" for thing in ("like", "comment", "share", "view")
    }
    assert texts == set(VIDEO_FIELDS) - numbers


@pytest.mark.parametrize(
    ("changes", "status", "code", "breach"),
    [
        pytest.param({"method": "GET"}, 404, "unsupported_path", "method", id="method"),
        pytest.param({"headers": {}}, 401, "access_token_invalid", "Authorization", id="no-token"),
        pytest.param(
            {"content_type": "text/plain"}, 400, "invalid_params", "Content-Type", id="type"
        ),
        pytest.param({"fields": None}, 400, "invalid_params", "fields", id="no-fields"),
        pytest.param({"fields": ""}, 400, "invalid_params", "fields", id="empty-fields"),
        pytest.param({"fields": "id,fps"}, 400, "invalid_params", "fps", id="unknown-field"),
        pytest.param({"body": b""}, 400, "invalid_params", "body", id="no-body"),
        pytest.param({"body": b"[]"}, 400, "invalid_params", "body", id="no-object"),
        pytest.param(
            {"body": b'{"video_ids":["7"]}'}, 400, "invalid_params", "body", id="no-filters"
        ),
        pytest.param({"video_ids": []}, 400, "invalid_params", "not 0", id="no-ids"),
        pytest.param({"video_ids": ANA_IDS[:21]}, 400, "invalid_params", "not 21", id="too-many"),
        pytest.param({"video_ids": [7]}, 400, "invalid_params", "int", id="number"),
        pytest.param({"video_ids": ["7", "7"]}, 400, "invalid_params", "duplicates", id="twice"),
    ],
)
async def test_refuses_and_records_what_breaks_the_contract(changes, status, code, breach):
    """A request that is not as documented is refused, and the record says what was wrong."""
    async with served() as (emulator, client):
        assert await client.error_code(**changes) == (status, code)
    (arrival,) = emulator.record
    assert (arrival.status, arrival.error_code) == (status, code)
    assert breach in arrival.breach


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", QUERY_PATH),
        ("POST", QUERY_PATH.rstrip("/")),
        ("GET", TOKEN_PATH),
        ("POST", TOKEN_PATH.rstrip("/")),
        ("POST", "/v2/video/list/"),
    ],
)
async def test_a_path_or_method_that_is_none_is_unsupported(method, path):
    """A slash too few is enough; the answer comes in the usual envelope, with its log ID."""
    async with served() as (emulator, client):
        headers = {"Authorization": "Bearer act.ana"}
        status, got, body = await client.send(method, client.base_url + path, headers=headers)
        assert emulator.holds_refresh_token("ana", "rft.ana")
    error = msgspec.json.decode(body)["error"]
    assert (status, error["code"]) == (404, "unsupported_path")
    assert error["message"] == "Unsupported path(Janus)"
    assert error["log_id"] == got[LOG_ID_HEADER]
    breaches = [arrival.breach for arrival in emulator.record]
    assert len(breaches) == path.startswith(QUERY_PATH.rstrip("/"))
    assert all(breaches)


@given(st.binary() | st.from_regex(rb'\{"filters":\{"video_ids":\[.*\]\}\}', fullmatch=True))
def test_any_body_is_either_a_good_list_or_a_breach(body):
    """Whatever bytes arrive, they are 1 to 20 distinct IDs or there is a sentence about it."""
    ids, breach = read_body(body)
    assert breach or (1 <= len(ids) <= MAX_VIDEO_IDS and len(set(ids)) == len(ids))


def test_fields_may_be_given_once_only():
    """Two `fields` parameters are a breach, as it is not known which one would count."""
    assert read_fields(["id"]) == (("id",), None)
    assert read_fields(["id", "title"])[1] is not None


async def test_leaves_out_what_is_not_the_accounts_to_see():
    """Videos of others, removed ones and ones that never were are left out without a word."""
    async with served() as (emulator, client):
        emulator.remove_video("ana", ANA_IDS[1])
        videos = await client.videos([ANA_IDS[0], ANA_IDS[1], BEN_ID, "no-such-video"])
        nothing = await client.videos([BEN_ID])
    assert [video["id"] for video in videos] == [ANA_IDS[0]]
    assert nothing == []


async def test_the_answer_is_not_in_the_order_asked_for():
    """All videos come back, but whoever matches by position is found out."""
    async with served() as (_, client):
        for asked in (ANA_IDS[:2], ANA_IDS[:20]):
            got = [video["id"] for video in await client.videos(asked)]
            assert sorted(got) == asked
            assert got != asked


@pytest.mark.parametrize(
    ("share", "count"), [(0, 30), (0.5, None), (1, 0)], ids=["none", "half", "all"]
)
async def test_the_missing_share_is_always_the_same_videos(share, count):
    """Which IDs are missing depends on the IDs alone: not on the seed, not on the request."""
    kept = []
    for seed in (1, 2):
        async with served(missing_share=share, seed=seed) as (_, client):
            videos = await client.videos(ANA_IDS[:20]) + await client.videos(ANA_IDS[20:])
        kept.append({video["id"] for video in videos})
    assert kept[0] == kept[1]
    assert len(kept[0]) == count if count is not None else 0 < len(kept[0]) < 30


async def test_one_refused_video_spoils_the_whole_query():
    """Neither is it said which one it was, nor is the request at fault, and it is not for free."""
    async with served(rate_limit_per_token=3) as (emulator, client):
        emulator.refuse_video(ANA_IDS[1])
        for asked in (ANA_IDS[:20], ANA_IDS[1:2]):
            status, _, body = await client.query(asked)
            assert (status, b"invalid_params" in body) == (400, True)
            assert not any(video_id.encode() in body for video_id in ANA_IDS)
        assert await client.error_code(ANA_IDS[2:4]) == (200, "ok")
        assert await client.error_code(ANA_IDS[:2]) == (429, "rate_limit_exceeded")
        emulator.accept_video(ANA_IDS[1])
        emulator.options = EmulatorOptions()
        assert len(await client.videos(ANA_IDS[:2])) == 2
    assert [arrival.breach for arrival in emulator.record] == [None] * 5


# --- Access tokens ---


async def test_a_dead_access_token_is_refused():
    """Unknown, expired, revoked and replaced tokens all get the same 401."""
    clock = Clock()
    async with served(clock) as (emulator, client):
        emulator.add_account("cat", "act.cat", access_token_expires_at=NOW + 10)
        assert await client.error_code(token="act.cat") == (200, "ok")
        clock.now += 10
        emulator.revoke_access_token("ana")
        emulator.add_account("ben", "act.ben-2")
        for token in ("act.unknown", "act.cat", "act.ana", "act.ben"):
            assert await client.error_code(token=token) == (401, "access_token_invalid")
        assert len(await client.videos([BEN_ID], token="act.ben-2")) == 1


async def test_a_token_belongs_to_the_account_it_was_last_given_to():
    """The earlier holder's end of authorization does not touch it any more."""
    async with served() as (emulator, client):
        emulator.add_account("cat", "act.ana")
        emulator.revoke_access_token("ana")
        assert await client.videos(ANA_IDS[:2]) == []
    assert emulator.record[0].open_id == "cat"


async def test_the_scope_is_needed():
    """A user who did not agree to video.list is refused with its own code."""
    async with served() as (emulator, client):
        emulator.add_account("cat", "act.cat", scope="user.info.basic")
        assert await client.error_code(token="act.cat") == (401, "scope_not_authorized")


async def test_the_scope_can_be_taken_away_and_given_back():
    """With the tokens the account has, and told with the next ones."""
    async with served() as (emulator, client):
        emulator.set_scope("ana", "user.info.basic")
        assert await client.error_code() == (401, "scope_not_authorized")
        assert (await client.refresh())["scope"] == "user.info.basic"
        emulator.set_scope("ana", "video.list")
        assert await client.error_code() == (200, "ok")


# --- Rate limits ---


async def test_the_window_slides():
    """Room comes back exactly 60 s after each request, one at a time, and not a moment before."""
    clock = Clock(0.0)
    async with served(clock, rate_limit_per_token=2) as (_, client):
        statuses = []
        for clock.now in (0, 30, 59.999, 60, 60, 89.999, 90):
            status, headers, _ = await client.query()
            assert "Retry-After" not in headers
            statuses.append(status)
    assert statuses == [200, 200, 429, 200, 429, 429, 200]


async def test_each_token_has_its_own_window_but_the_app_only_one():
    """Ben is not held back by Ana's limit, but by the app's."""
    async with served(rate_limit_per_token=1, rate_limit_per_app=2) as (emulator, client):
        answers = [await client.error_code(token=f"act.{who}") for who in ("ana", "ana", "ben")]
        emulator.options = dataclasses.replace(emulator.options, rate_limit_per_token=0)
        answers.append(await client.error_code(token="act.ben"))
    assert [status for status, _ in answers] == [200, 429, 200, 429]
    assert answers[1][1] == "rate_limit_exceeded"


@pytest.mark.parametrize("options", [{"rate_limit_per_app": 1}, {"throttled_share": 1}])
async def test_a_429_can_say_when_to_come_back(options):
    """Both the real limit and the storm to order do, and nothing else does."""
    async with served(retry_after_seconds=7, **options) as (_, client):
        answers = [await client.query() for _ in range(2)]
        answers.append(await client.query(token="act.unknown"))
    told = {(status, headers.get("Retry-After")) for status, headers, _ in answers}
    assert told - {(200, None)} == {(429, "7"), (401, None)}


@given(
    st.lists(st.integers(0, 30), max_size=60).map(
        lambda gaps: [sum(gaps[:n]) for n in range(len(gaps))]
    ),
    st.integers(1, 5),
)
def test_no_window_of_a_minute_ever_holds_more_than_the_limit(times, limit):
    """Admitted are exactly those that find less than the limit in the 60 s before them."""
    window = SlidingWindow()
    admitted: list[int] = []
    for now in times:
        expected = sum(now - 60 < earlier <= now for earlier in admitted) < limit
        assert window.has_room(now, limit) == expected
        if expected:
            window.add(now)
            admitted.append(now)


# --- Covers ---


async def cover_of(client):
    (video,) = await client.videos(ANA_IDS[:1])
    return video["cover_image_url"]


async def test_a_cover_is_an_image_until_it_expires():
    """The URL serves a JPEG up to its last second and 403 from x-expires on."""
    clock = Clock()
    async with served(clock, cover_ttl=60) as (_, client):
        url = await cover_of(client)
        expires = int(dict(parse_qsl(urlsplit(url).query))["x-expires"])
        assert expires == int(NOW) + 60
        clock.now = expires - 0.001
        status, headers, image = await client.get(url)
        assert (status, headers["Content-Type"], image) == (200, "image/jpeg", COVER_JPEG)
        clock.now = expires
        assert (await client.get(url))[0] == 403


async def test_covers_can_be_ordered_to_die_early():
    """They name the same expiry as ever, and are refused before it."""
    clock = Clock()
    async with served(clock, cover_ttl=60, covers_die_early_seconds=20) as (_, client):
        url = await cover_of(client)
        assert f"x-expires={int(NOW) + 60}&" in url
        clock.now = int(NOW) + 39.999
        assert (await client.get(url))[0] == 200
        clock.now = int(NOW) + 40
        assert (await client.get(url))[0] == 403


async def test_a_cover_url_must_stay_byte_for_byte():
    """Re-encoding the URL, altering the signature, moving the expiry or the path: all 403."""
    async with served() as (_, client):
        url = await cover_of(client)
        expires = f"x-expires={int(NOW) + 21600}"
        for altered in (
            str(URL(url)),
            url.replace("%2F", "%2f"),
            url.replace("x-signature=", "x-signature=A"),
            url.replace(expires, f"x-expires={int(NOW) + 21601}"),
            url.replace("~tplv", "x~tplv"),
            url.partition("?")[0],
        ):
            assert altered != url
            assert (await client.get(altered))[0] == 403
        assert (await client.get(url))[0] == 200


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 4_000_000_000))
def test_every_cover_url_has_the_shape_of_the_real_ones(video_id, expires_at):
    """Colons and tildes in the path, the expiry in the clear, and always a %2F to trip over."""
    url = CoverSigner(b"key").url("http://cdn", video_of(video_id), expires_at)
    query = url.partition("?")[2]
    assert "~tplv-tiktokx-cropcenter-q:300:400:q72.jpeg?" in url
    assert re.search(r"(^|&)refresh_token=[0-9a-f]{8}(&|$)", query)
    assert re.search(rf"(^|&)x-expires={expires_at}(&|$)", query)
    assert re.search(r"(^|&)x-signature=[A-Za-z0-9%]*%2F[A-Za-z0-9%]*%3D(&|$)", query)
    assert CoverSigner(b"key").serves(url.removeprefix("http://cdn"), expires_at - 1)
    assert not CoverSigner(b"other").serves(url.removeprefix("http://cdn"), expires_at - 1)


async def test_the_order_of_the_parameters_varies():
    """Whoever finds the expiry by its position is found out."""
    async with served() as (_, client):
        urls = [video["cover_image_url"] for video in await client.videos(ANA_IDS[:20])]
    assert len({tuple(key for key, _ in parse_qsl(urlsplit(url).query)) for url in urls}) > 1


@pytest.mark.parametrize("now", [NOW // 3600 * 3600, NOW // 3600 * 3600 + 3599.9])
async def test_hourly_covers_expire_together(now):
    """Within an hour every answer has the same expiry: that hour's beginning plus a day."""
    async with served(Clock(now), cover_ttl="hourly") as (_, client):
        url = await cover_of(client)
    assert f"x-expires={int(NOW // 3600 * 3600) + 86400}&" in url


async def test_covers_can_be_said_to_be_elsewhere():
    """A public URL replaces the address the query was sent to."""
    async with served(public_url="https://covers.example") as (_, client):
        assert (await cover_of(client)).startswith("https://covers.example/tos-")


# --- Refreshing tokens ---


async def test_refreshing_gives_a_new_pair_and_no_longer_consent():
    """The new access token works at once; refresh_expires_in only ever counts down."""
    clock = Clock()
    async with served(clock, access_token_ttl_seconds=7200) as (emulator, client):
        emulator.add_account(
            "ana", "act.old", refresh_token="rft.ana", refresh_token_expires_at=NOW + 100
        )
        first = await client.refresh()
        clock.now += 40
        second = await client.refresh(first["refresh_token"])
        assert len(await client.videos(token=second["access_token"])) == 2
        clock.now += 60
        too_late = await client.refresh(second["refresh_token"])
    assert first | {"access_token": "", "refresh_token": ""} == {
        "access_token": "",
        "expires_in": 7200,
        "open_id": "ana",
        "refresh_expires_in": 100,
        "refresh_token": "",
        "scope": "user.info.basic,video.list",
        "token_type": "Bearer",
    }
    assert second["refresh_expires_in"] == 60
    assert len({first["access_token"], second["access_token"], "act.old"}) == 3
    assert too_late["error"] == "invalid_grant"
    assert [arrival.error_code for arrival in emulator.token_record] == [
        "ok",
        "ok",
        "invalid_grant",
    ]


async def test_tokens_are_as_documented_where_nothing_else_is_said():
    """An access token lives two hours, a consent 180 days, and a used refresh token no longer."""
    async with served() as (_, client):
        first = await client.refresh()
        assert (first["expires_in"], first["refresh_expires_in"]) == (7200, 180 * 86_400)
        assert (await client.refresh())["error"] == "invalid_grant"
    defaults = {name: it.default for name, it in signature(emulator_command).parameters.items()}
    assert defaults["access_token_ttl"] == EmulatorOptions().access_token_ttl_seconds
    assert defaults["refresh_token_rotation"] == EmulatorOptions().refresh_token_rotation


async def test_a_refreshed_access_token_expires_when_it_said():
    """expires_in is true to the second."""
    clock = Clock()
    async with served(clock, access_token_ttl_seconds=50) as (_, client):
        token = (await client.refresh())["access_token"]
        clock.now += 49.9
        assert await client.error_code(token=token) == (200, "ok")
        clock.now += 0.1
        assert await client.error_code(token=token) == (401, "access_token_invalid")


async def test_strict_rotation_kills_the_used_refresh_token():
    """A client that loses the new refresh token has lost the account."""
    async with served(refresh_token_rotation="strict") as (_, client):
        renewed = await client.refresh()
        assert (await client.refresh())["error"] == "invalid_grant"
        assert "error" not in await client.refresh(renewed["refresh_token"])


async def test_lenient_rotation_leaves_the_used_refresh_token_alone():
    """Old and new refresh token both go on working."""
    async with served(refresh_token_rotation="lenient") as (_, client):
        renewed = await client.refresh()
        for token in ("rft.ana", renewed["refresh_token"], "rft.ana"):
            assert "error" not in await client.refresh(token)


@pytest.mark.parametrize(("fate", "status"), [("live", 200), ("die", 401)])
async def test_what_becomes_of_old_access_tokens(fate, status):
    """Renewing a pair leaves the access token before it alone, or ends it at once."""
    async with served(old_access_tokens=fate) as (emulator, client):
        renewed = (await client.refresh())["access_token"]
        assert (await client.error_code(token="act.ana"))[0] == status
        assert (await client.error_code(token=renewed))[0] == 200
        assert emulator.holds_access_token("ana", "act.ana") == (status == 200)


async def test_consent_taken_back_ends_every_refresh_token():
    """Old and new ones; the access tokens go on working, and so does another account."""
    async with served(refresh_token_rotation="lenient") as (emulator, client):
        emulator.add_account("ben", "act.ben", refresh_token="rft.ben")
        renewed = await client.refresh()
        emulator.revoke_refresh_token("ana")
        for token in ("rft.ana", renewed["refresh_token"]):
            assert (await client.refresh(token))["error"] == "invalid_grant"
        assert "error" not in await client.refresh("rft.ben")
        assert await client.error_code(token=renewed["access_token"]) == (200, "ok")
    assert [arrival.open_id for arrival in emulator.token_record] == ["ana", "ana", "ana", "ben"]


async def test_whether_a_token_is_alive_can_be_looked_up():
    """Only for the account it belongs to, until it is used, expires or is revoked."""
    clock = Clock()
    async with served(clock, access_token_ttl_seconds=50) as (emulator, client):
        renewed = await client.refresh()
        access, refresh = renewed["access_token"], renewed["refresh_token"]
        assert not emulator.holds_refresh_token("ana", "rft.ana")
        assert emulator.holds_refresh_token("ana", refresh)
        assert emulator.holds_access_token("ana", access)
        assert not emulator.holds_refresh_token("ben", refresh)
        assert not emulator.holds_access_token("ben", access)
        clock.now += 50
        assert not emulator.holds_access_token("ana", access)
        emulator.revoke_refresh_token("ana")
        assert not emulator.holds_refresh_token("ana", refresh)


async def test_the_record_tells_a_token_used_twice():
    """Whose it was stays known when it is dead; its digest shows no more than that it is the same."""
    async with served() as (emulator, client):
        renewed = await client.refresh()
        await client.refresh()
        await client.refresh(renewed["refresh_token"])
        await client.refresh("rft.unknown")
        await client.refresh("")
    record = emulator.token_record
    assert [(arrival.open_id, arrival.error_code, arrival.used_before) for arrival in record] == [
        ("ana", "ok", False),
        ("ana", "invalid_grant", True),
        ("ana", "ok", False),
        (None, "invalid_grant", False),
        (None, "invalid_request", False),
    ]
    digests = [arrival.refresh_token_digest for arrival in record]
    assert digests[0] == digests[1] == hashlib.sha256(b"rft.ana").hexdigest()[:16]
    assert digests[2] == token_digest(renewed["refresh_token"])
    assert digests[4] == ""
    assert all(arrival.answered for arrival in record)
    assert "rft." not in repr(record)


async def test_a_refresh_token_given_again_is_as_new():
    """A new authorization with the token of the last one: it was not used yet."""
    async with served() as (emulator, client):
        await client.refresh()
        emulator.add_account("ana", "act.ana", refresh_token="rft.ana")
        assert "error" not in await client.refresh()
    assert [arrival.used_before for arrival in emulator.token_record] == [False, False]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"refresh_token": ""}, "invalid_request", id="no-token"),
        pytest.param(
            {"grant_type": "client_credentials"}, "unsupported_grant_type", id="grant-type"
        ),
        pytest.param({"client_secret": "wrong"}, "invalid_client", id="secret"),
        pytest.param({"client_key": "wrong"}, "invalid_client", id="key"),
        pytest.param({"refresh_token": "rft.unknown"}, "invalid_grant", id="unknown"),
    ],
)
async def test_token_errors_are_flat(changes, error):
    """A refused token request names its error at the top level, and spends nothing."""
    async with served(client_key="key", client_secret="secret") as (_, client):
        answer = await client.refresh(**changes)
        assert answer["error"] == error
        assert answer.keys() == {"error", "error_description", "log_id"}
        assert "error" not in await client.refresh()


async def test_a_token_request_must_be_a_form():
    """JSON is not what the token endpoint reads."""
    async with served() as (_, client):
        url = f"{client.base_url}{TOKEN_PATH}"
        _, _, body = await client.send("POST", url, json={"refresh_token": "rft.ana"})
    assert msgspec.json.decode(body)["error"] == "invalid_request"


async def test_a_token_answer_can_be_scripted():
    """A hook sees the form and may answer in the emulator's place; then nothing is renewed."""
    seen = []

    def script(form):
        seen.append(form)
        return web.Response(status=418, text="teapot") if len(seen) == 1 else None

    async with served() as (emulator, client):
        emulator.answer_token_with = script
        assert (await client.token())[::2] == (418, b"teapot")
        assert "error" not in await client.refresh()
    assert seen[0]["refresh_token"] == "rft.ana"
    assert [(arrival.error_code, arrival.used_before) for arrival in emulator.token_record] == [
        ("scripted", False),
        ("ok", False),
    ]


# --- Faults of the token endpoint ---


async def test_a_failed_token_request_changes_nothing():
    """A flat error or a gateway's page, over and over; then the same tokens still work."""
    failures = set()
    async with served(token_failed_share=1) as (emulator, client):
        for _ in range(40):
            status, headers, body = await client.token()
            is_page = headers["Content-Type"] == "text/html"
            failures.add((status, "page" if is_page else msgspec.json.decode(body)["error"]))
        assert emulator.holds_refresh_token("ana", "rft.ana")
        assert emulator.holds_access_token("ana", "act.ana")
        emulator.options = EmulatorOptions()
        assert "error" not in await client.refresh()
    assert failures == {
        *((status, "server_error") for status in (200, 500, 503)),
        *((status, "temporarily_unavailable") for status in (200, 500, 503)),
        (502, "page"),
        (503, "page"),
    }
    assert not any(arrival.used_before for arrival in emulator.token_record)


@asynccontextmanager
async def failing(failure):
    """Waiting ends after a moment where that is the failure expected."""
    with pytest.raises(failure):
        async with asyncio.timeout(0.5 if failure is TimeoutError else 30):
            yield


@pytest.mark.parametrize(
    ("fault", "failure", "status", "code"),
    [
        ("timeout", TimeoutError, 0, "no_answer"),
        ("cut", aiohttp.ServerDisconnectedError, 0, "cut"),
        ("malformed", msgspec.DecodeError, 200, "malformed"),
    ],
)
async def test_a_lost_token_answer_has_renewed_all_the_same(fault, failure, status, code):
    """The token that was sent is used up, and the one in its place has reached nobody."""
    async with served(**{f"token_{fault}_share": 1}) as (emulator, client):
        async with failing(failure):
            await client.refresh()
        emulator.options = EmulatorOptions()
        assert not emulator.holds_refresh_token("ana", "rft.ana")
        assert (await client.refresh())["error"] == "invalid_grant"
    lost, again = emulator.token_record
    assert (lost.open_id, lost.status, lost.error_code) == ("ana", status, code)
    assert (lost.used_before, lost.answered) == (False, False)
    assert (again.open_id, again.used_before, again.answered) == ("ana", True, True)


async def test_only_good_token_requests_meet_a_fault():
    """What would be refused is refused, and what is lost can be sent again where that is lenient."""
    async with served(token_cut_share=1, refresh_token_rotation="lenient") as (emulator, client):
        assert (await client.refresh("rft.unknown"))["error"] == "invalid_grant"
        async with failing(aiohttp.ServerDisconnectedError):
            await client.refresh()
        emulator.options = dataclasses.replace(emulator.options, token_cut_share=0)
        assert "error" not in await client.refresh()


async def test_a_client_that_leaves_before_its_tokens_come_was_not_answered():
    """They are renewed as the request arrives, not as the answer leaves."""
    arrived = asyncio.Event()
    async with served(latency_seconds=3600) as (emulator, client):
        emulator.answer_token_with = lambda _: arrived.set()
        leaving = asyncio.create_task(client.refresh())
        await arrived.wait()
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        assert not emulator.holds_refresh_token("ana", "rft.ana")
    (arrival,) = emulator.token_record
    assert (arrival.status, arrival.error_code, arrival.answered) == (200, "ok", False)


async def token_outcomes(seed):
    shares = {"token_failed_share": 0.3, "token_cut_share": 0.3, "token_malformed_share": 0.3}
    async with served(seed=seed, refresh_token_rotation="lenient", **shares) as (emulator, client):
        for _ in range(60):
            with suppress(aiohttp.ServerDisconnectedError):
                await client.token()
    return [(arrival.status, arrival.error_code) for arrival in emulator.token_record]


async def test_token_faults_follow_from_the_seed():
    """The same seed gives the same faults in the same order, another seed others."""
    assert await token_outcomes(1) == await token_outcomes(1)
    assert await token_outcomes(1) != await token_outcomes(2)
    assert {code for _, code in await token_outcomes(1)} == {
        "ok",
        "server_error",
        "temporarily_unavailable",
        "cut",
        "malformed",
    }


# --- Faults ---


async def outcomes(seed, *, refreshing=False, **options):
    shares = {"throttled_share": 0.25, "failed_share": 0.25, "malformed_share": 0.25}
    async with served(seed=seed, **shares, **options) as (emulator, client):
        for _ in range(60):
            await client.query()
            if refreshing:
                await client.token()
    return [(arrival.status, arrival.error_code) for arrival in emulator.record]


async def test_faults_follow_from_the_seed():
    """The same seed gives the same faults in the same order, another seed others; all occur."""
    assert await outcomes(1) == await outcomes(1)
    assert await outcomes(1) != await outcomes(2)
    assert set(await outcomes(1)) == {
        (200, "ok"),
        (200, "malformed"),
        (429, "rate_limit_exceeded"),
        (500, "internal_error"),
        (502, "internal_error"),
    }


async def test_other_chances_do_not_move_the_faults():
    """Token requests and slow answers draw apart from the queries' faults."""
    others = {"token_failed_share": 1, "slow_share": 0.5, "slow_seconds": 0}
    assert await outcomes(1, refreshing=True, **others) == await outcomes(1)


async def test_malformed_answers_are_no_json():
    """A malformed answer says 200 and cannot be read."""
    async with served(malformed_share=1) as (_, client):
        for _ in range(10):
            status, _, body = await client.query()
            assert status == 200
            with pytest.raises(msgspec.DecodeError):
                msgspec.json.decode(body)


async def test_faults_can_be_switched_while_it_runs():
    """Replacing the options takes effect with the next request: a storm of 429 for a while."""
    codes = []
    async with served() as (emulator, client):
        for share in (0, 1, 1, 0):
            emulator.options = dataclasses.replace(emulator.options, throttled_share=share)
            codes.append(await client.error_code())
    assert codes == [(200, "ok"), *[(429, "rate_limit_exceeded")] * 2, (200, "ok")]


@pytest.mark.parametrize(
    ("down", "status", "failure"),
    [
        ("failed", 503, msgspec.DecodeError),
        ("hang", 0, TimeoutError),
        ("cut", 0, aiohttp.ServerDisconnectedError),
    ],
)
async def test_while_it_is_down_nobody_is_served(down, status, failure):
    """Bad requests neither; nothing counts or is renewed, but all that arrives is recorded."""
    async with served(rate_limit_per_token=1) as (emulator, client):
        emulator.answer_with = emulator.answer_token_with = lambda _: web.Response()
        emulator.down = down
        for call in (client.error_code, partial(client.error_code, token="no"), client.refresh):
            async with failing(failure):
                await call()
        emulator.down = emulator.answer_with = emulator.answer_token_with = None
        assert await client.error_code() == (200, "ok")
        assert "error" not in await client.refresh()
    arrivals = [(arrival.open_id, arrival.error_code) for arrival in emulator.record]
    assert arrivals == [("ana", "down"), (None, "down"), ("ana", "ok")]
    assert [arrival.status for arrival in emulator.record] == [status, status, 200]
    renewals = [(arrival.status, arrival.error_code) for arrival in emulator.token_record]
    assert renewals == [(status, "down"), (200, "ok")]
    assert [arrival.answered for arrival in emulator.token_record] == [status == 503, True]


async def test_some_queries_are_slow():
    """They wait that much longer while others are answered, and token requests never do."""
    arrived = asyncio.Event()
    async with served(slow_share=1, slow_seconds=3600) as (emulator, client):
        emulator.answer_with = lambda _: arrived.set()
        slow = asyncio.create_task(client.query())
        await arrived.wait()
        assert "error" not in await client.refresh()
        emulator.options = dataclasses.replace(emulator.options, slow_share=0)
        assert await client.error_code() == (200, "ok")
        assert not slow.done()
        slow.cancel()
        with suppress(asyncio.CancelledError):
            await slow


async def test_a_slow_answer_comes_in_the_end():
    """It is the good answer, only late."""
    async with served(slow_share=1, slow_seconds=0.1, latency_seconds=0.1) as (_, client):
        began = time.monotonic()
        assert await client.error_code() == (200, "ok")
        assert time.monotonic() - began >= 0.2


async def test_a_client_may_give_up_on_an_answer():
    """Others are answered while a query waits for nothing, and giving it up leaves no trace."""
    arrived = asyncio.Event()
    async with served(timeout_share=1) as (emulator, client):
        emulator.answer_with = lambda _: arrived.set()
        hanging = asyncio.create_task(client.query())
        await arrived.wait()
        emulator.options = dataclasses.replace(emulator.options, timeout_share=0)
        assert await client.error_code() == (200, "ok")
        assert not hanging.done()
        hanging.cancel()
        with suppress(asyncio.CancelledError):
            await hanging
    assert [(arrival.status, arrival.error_code) for arrival in emulator.record] == [
        (0, "no_answer"),
        (200, "ok"),
    ]


@asynccontextmanager
async def one_query_in_flight(**options):
    """A query that has arrived at an emulator which is then stopped under it."""
    arrived = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        emulator = Emulator(EmulatorOptions(**options))
        emulator.add_account("ana", "act.ana")
        emulator.answer_with = lambda _: arrived.set()
        async with emulator.serving() as base_url:
            query = asyncio.create_task(Client(session, base_url).error_code())
            await arrived.wait()
        yield query


@pytest.mark.parametrize(
    "options", [{"latency_seconds": 3600}, {"slow_share": 1, "slow_seconds": 3600}]
)
async def test_latency_does_not_hold_up_stopping(options):
    """Stopping answers at once what was still being delayed."""
    async with one_query_in_flight(**options) as query:
        assert await query == (200, "ok")


async def test_an_answer_never_given_does_not_hold_up_stopping():
    """Stopping cuts the connection of a query that was left waiting."""
    async with one_query_in_flight(timeout_share=1) as query:
        with pytest.raises(aiohttp.ClientError):
            await query


async def test_an_answer_can_be_scripted():
    """A hook sees what was asked and may answer in the emulator's place."""
    seen = []

    def script(query):
        seen.append(query)
        return web.Response(status=418, text="teapot") if len(seen) == 1 else None

    async with served() as (emulator, client):
        emulator.answer_with = script
        assert (await client.query())[::2] == (418, b"teapot")
        assert await client.error_code() == (200, "ok")
    assert (seen[0].open_id, seen[0].fields) == ("ana", ("id", "cover_image_url"))
    assert [arrival.error_code for arrival in emulator.record] == ["scripted", "ok"]


# --- Record, files, options ---


async def test_the_record_tells_what_arrived_in_order():
    """IDs and outcomes; tests/test_emulator_control.py reads it from outside."""
    async with served() as (emulator, client):
        await client.query([ANA_IDS[0], BEN_ID])
        await client.query(ANA_IDS[:1], token="act.unknown")
    first, second = emulator.record
    assert first.at <= second.at
    assert dataclasses.replace(first, at=0) == Arrival(
        0, "ana", (ANA_IDS[0], BEN_ID), 200, "ok", None
    )
    assert (second.open_id, second.status, second.breach) == (None, 401, None)


async def test_the_sample_files_make_a_world():
    """20 sample accounts with 60 videos each; the last account's tokens are both dead."""
    emulator = Emulator(EmulatorOptions())
    populate(emulator, SAMPLE_ACCOUNTS, SAMPLE_VIDEOS)
    tokens = re.findall(r"act\.[^,]+", SAMPLE_ACCOUNTS.read_text())
    refresh_tokens = re.findall(r"rft\.[^,]+", SAMPLE_ACCOUNTS.read_text())
    rows = [line.split(",") for line in SAMPLE_VIDEOS.read_text().splitlines()[1:]]
    assert len({video_id for _, video_id in rows}) == 20 * 60
    async with emulator.serving() as base_url, aiohttp.ClientSession() as session:
        client = Client(session, base_url)
        for n in range(19):
            asked = [video_id for _, video_id in rows[60 * n : 60 * n + 20]]
            assert len(await client.videos(asked, token=tokens[n])) == 20
        assert await client.error_code(token=tokens[19]) == (401, "access_token_invalid")
        assert "error" not in await client.refresh(refresh_tokens[0])
        assert (await client.refresh(refresh_tokens[19]))["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "wrong",
    [
        {"cover_ttl": 0},
        {"missing_share": 1.5},
        {"slow_share": -0.1},
        {"throttled_share": 0.6, "failed_share": 0.6},
        {"token_cut_share": 0.6, "token_failed_share": 0.6},
        {"slow_seconds": -1},
        {"retry_after_seconds": -1},
        {"rate_limit_per_token": -1},
        {"access_token_ttl_seconds": 0},
    ],
    ids=str,
)
def test_options_are_checked_at_once(wrong):
    """An impossible option is refused where it is made."""
    with pytest.raises(ValueError, match="expected"):
        EmulatorOptions(**wrong)


def test_no_repr_shows_a_secret():
    """Neither the client secret nor a token is in a repr."""
    options = EmulatorOptions(client_secret="hush")
    emulator = Emulator(options)
    emulator.add_account("ana", "act.hush", refresh_token="rft.hush")
    assert "hush" not in repr(options) + repr(emulator) + repr(vars(emulator))
