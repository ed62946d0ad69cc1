"""The emulator's control endpoint, as another program uses it over a socket."""

import json
import re
import time
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from refresher.emulator.control import CHANGEABLE_OPTIONS, FIXED_OPTIONS, Control
from refresher.emulator.control_bodies import AccountChange, NewAccount
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.record import RECORD_LENGTH, Arrivals, RevokeArrival
from refresher.emulator.server import Emulator
from tests.test_emulator import ANA_IDS, Client

SECRET = "hush-hush"


class Controller(Client):
    """Beside the calls of an application, those of its tests."""

    async def control(self, verb, path="", body=None, **kwargs):
        if body is not None:
            kwargs["json"] = body
        status, _, answer = await self.send(verb, f"{self.base_url}/_control{path}", **kwargs)
        return status, msgspec.json.decode(answer)

    async def done(self, verb, path="", body=None, **kwargs):
        status, answer = await self.control(verb, path, body, **kwargs)
        assert status == 200, answer
        return answer


def fill(emulator):
    emulator.add_account("ana", "act.ana", refresh_token="rft.ana")
    for video_id in ANA_IDS[:3]:
        emulator.add_video("ana", video_id)


@asynccontextmanager
async def controlled(**options):
    """An emulator with Ana's three videos, its control endpoint, and a client of both."""
    emulator = Emulator(EmulatorOptions(client_key="key", client_secret=SECRET, **options))
    fill(emulator)
    routes = Control(emulator, refill=lambda: fill(emulator)).routes()
    async with (
        emulator.serving(routes=routes) as base_url,
        aiohttp.ClientSession() as session,
    ):
        yield emulator, Controller(session, base_url)


# --- The page ---


def test_the_page_names_all_there_is():
    """docs/emulator.md: every option, every resource, every field of a body."""
    page = (Path(__file__).parents[1] / "docs/emulator.md").read_text()
    options = page.split("### Options")[1].split("### Accounts")[0]
    assert set(re.findall(r"`([a-z_]+)`", options)) == set(CHANGEABLE_OPTIONS)
    named = re.findall(r"`([A-Z]+ /_control[^`]*)`", page)
    assert {re.sub(r"OPEN_ID|VIDEO_ID", "{}", each) for each in named} == {
        re.sub(r"{\w+}", "{}", each.method + " " + each.path)
        for each in Control(Emulator()).routes()
        if each.method != "*"
    }
    for field in (*NewAccount.__struct_fields__, *AccountChange.__struct_fields__):
        assert field in page.split("### Accounts")[1]


# --- Options ---


async def test_faults_and_limits_change_while_it_serves():
    """From the next request on, and back again; what is not named stays."""
    async with controlled(latency_seconds=0.01) as (_, client):
        answer = await client.done("PATCH", "/options", {"throttled_share": 1})
        assert (answer["throttled_share"], answer["latency_seconds"]) == (1, 0.01)
        assert await client.error_code() == (429, "rate_limit_exceeded")
        await client.done(
            "PATCH", "/options", {"throttled_share": 0, "rate_limit_per_token": 2, "cover_ttl": 60}
        )
        assert await client.error_code() == (200, "ok")
        assert await client.error_code() == (429, "rate_limit_exceeded")
        assert (await client.done("GET", "/options"))["cover_ttl"] == 60


async def test_options_show_no_secret():
    """What is decided at the start is neither shown nor changed: key, secret, seed, base URL."""
    async with controlled() as (emulator, client):
        answer = await client.done("GET", "/options")
        assert tuple(answer) == CHANGEABLE_OPTIONS
        assert not FIXED_OPTIONS & answer.keys()
        for name in FIXED_OPTIONS:
            status, answer = await client.control("PATCH", "/options", {name: "mine"})
            assert status == 422
            assert json.dumps(name) in answer["error"]
        assert emulator.options.client_secret == SECRET


@pytest.mark.parametrize(
    ("verb", "path", "body", "words"),
    [
        (
            "PATCH",
            "/options",
            {"throttled_share": "often"},
            ["throttled_share", "float", '"often"'],
        ),
        ("PATCH", "/options", {"throttled_share": 2}, ["throttled_share", "0 and 1", "2"]),
        ("PATCH", "/options", {"latency_seconds": -1}, ["latency_seconds", ">= 0", "-1"]),
        ("PATCH", "/options", {"failed_share": 0.6, "timeout_share": 0.6}, ["at most 1", "1.2"]),
        ("PATCH", "/options", {"throtled_share": 1}, ["throttled_share", '"throtled_share"']),
        ("PATCH", "/options", {"cover_ttl": "soon"}, ["cover_ttl", '"soon"']),
        ("PATCH", "/options", {"cover_ttl": None}, ["cover_ttl", "null"]),
        ("PATCH", "/options", {"slow_share": 0.1, "slow_seconds": []}, ["slow_seconds", "[]"]),
        ("PATCH", "/options", [], ["object", "array"]),
        ("PATCH", "/accounts/ana", {"consent": "gone"}, ["consent", "gone"]),
        ("PATCH", "/accounts/ana", {"scope": "", "consents": 1}, ["consents"]),
        ("PATCH", "/accounts/ana", {"refusal": {"code": 7}}, ["refusal.code", "str", "7"]),
        ("PATCH", "/accounts/ana", {"refusal": {"code": "x", "http_status": 7}}, ["refusal", "7"]),
        ("PUT", "/accounts/zoe", {"access_token": "a b"}, ["access_token", '"a b"']),
        ("PUT", "/accounts/zoe", {"access_token": "act\n"}, ["access_token"]),
        ("PUT", "/accounts/zoe", {"videos": ["7", 7]}, ["videos[1]", "str", "7"]),
        ("PUT", "/accounts/zoe", {"refresh_token_expires_in": -1}, ["refresh_token_expires_in"]),
        ("GET", "/record?last=few", None, ["last", '"few"']),
        ("GET", "/record?last=-1", None, ["last", '"-1"']),
        pytest.param("GET", f"/record?last={'9' * 5000}", None, ["last"], id="last-of-5000"),
        ("GET", "/record?lst=2", None, ['"lst"']),
        ("GET", "/accounts?_=2", None, ['"_"']),
        ("GET", "/accounts/ana?open_id=ben", None, ['"open_id"']),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named_and_changes_nothing(verb, path, body, words):
    """422, and one line with the value and what was expected."""
    async with controlled() as (emulator, client):
        before = (emulator.options, await client.done("GET", "/accounts"))
        status, answer = await client.control(verb, path, body)
        assert status == 422
        assert answer.keys() == {"error"}
        assert "\n" not in answer["error"]
        assert [word for word in words if word not in answer["error"]] == [], answer
        assert (emulator.options, await client.done("GET", "/accounts")) == before


async def test_what_is_no_json_is_refused():
    """400. A page of another site in a browser could only send it with a type of its own."""
    async with controlled() as (emulator, client):
        for data, kind in (
            (b"{", "application/json"),
            (b"\xff", "application/json"),
            (b"[" * 100_000, "application/json"),
            (b'{"latency_seconds": 1e999}', "application/json"),
            (b'{"throttled_share": 1}', "text/plain"),
        ):
            status, answer = await client.control(
                "PATCH", "/options", data=data, headers={"Content-Type": kind}
            )
            assert status == 400, answer
            assert "JSON" in answer["error"] or "application/json" in answer["error"]
        assert emulator.options.throttled_share == 0


async def test_what_is_not_there_is_said_with_what_there_is():
    """404 for another path or verb, and for an account that nobody added."""
    async with controlled() as (_, client):
        for verb, path in (("GET", "/faults"), ("POST", "/options"), ("GET", "")):
            status, answer = await client.control(verb, path)
            assert status == 404
            assert "PATCH /_control/options" in answer["error"]
        for verb, path in (
            ("GET", "/accounts/zoe"),
            ("PATCH", "/accounts/zoe"),
            ("PUT", "/accounts/zoe/videos/7"),
            ("DELETE", "/accounts/zoe/videos/7"),
        ):
            status, answer = await client.control(verb, path)
            assert (status, '"zoe"' in answer["error"]) == (404, True)


async def test_it_is_off_unless_asked_for():
    """Without it the path is one that the emulator does not know."""
    emulator = Emulator()
    async with emulator.serving() as base_url, aiohttp.ClientSession() as session:
        client = Controller(session, base_url)
        answers = [
            (await client.send(verb, base_url + path))[::2]
            for verb, path in (("GET", "/_control/options"), ("GET", "/nowhere"))
        ]
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


# --- Accounts and videos ---


async def test_a_consent_ends():
    """Access token and refresh token die; a new authorization brings others."""
    async with controlled() as (_, client):
        assert await client.error_code(ANA_IDS[:1]) == (200, "ok")
        view = await client.done("PATCH", "/accounts/ana", {"consent": "revoked"})
        assert (view["live_access_tokens"], view["live_refresh_tokens"]) == (0, 0)
        assert await client.error_code(ANA_IDS[:1]) == (401, "access_token_invalid")
        assert (await client.refresh(client_secret=SECRET))["error"] == "invalid_grant"
        tokens = await client.done("PUT", "/accounts/ana")
        assert await client.error_code(ANA_IDS[:1], token=tokens["access_token"]) == (200, "ok")
        assert "error" not in await client.refresh(tokens["refresh_token"], client_secret=SECRET)


async def test_each_kind_of_token_is_revoked_alone():
    """A dead access token can be renewed; a dead refresh token leaves the access token alive."""
    async with controlled() as (_, client):
        await client.done("PATCH", "/accounts/ana", {"access_token": "revoked"})
        assert await client.error_code() == (401, "access_token_invalid")
        pair = await client.refresh(client_secret=SECRET)
        await client.done("PATCH", "/accounts/ana", {"refresh_token": "revoked"})
        assert await client.error_code(token=pair["access_token"]) == (200, "ok")
        refused = await client.refresh(pair["refresh_token"], client_secret=SECRET)
        assert refused["error"] == "invalid_grant"


async def test_scopes_get_lost_and_users_restricted():
    """Each until it is put right, and only for that account."""
    async with controlled() as (_, client):
        await client.done("PUT", "/accounts/ben", {"access_token": "act.ben"})
        await client.done("PATCH", "/accounts/ana", {"scope": "user.info.basic"})
        assert await client.error_code() == (401, "scope_not_authorized")
        assert await client.error_code(token="act.ben") == (200, "ok")
        await client.done("PATCH", "/accounts/ana", {"scope": "video.list"})
        refusal = {"code": "user_account_restricted", "http_status": 403}
        view = await client.done("PATCH", "/accounts/ana", {"refusal": refusal})
        assert view["refusal"] == refusal
        assert await client.error_code() == (403, "user_account_restricted")
        assert await client.error_code(token="act.ben") == (200, "ok")
        await client.done("PATCH", "/accounts/ana", {"refusal": None})
        assert await client.error_code() == (200, "ok")


async def test_a_video_is_deleted_and_published_again():
    """It is left out of answers in between."""
    path = f"/accounts/ana/videos/{ANA_IDS[0]}"
    async with controlled() as (_, client):
        assert (await client.done("DELETE", path))["videos"] == 2
        assert await client.videos(ANA_IDS[:1]) == []
        await client.done("PUT", path)
        assert [video["id"] for video in await client.videos(ANA_IDS[:1])] == ANA_IDS[:1]


async def test_an_account_is_added_with_all_that_belongs_to_it():
    """Tokens as told, or made up; none of them is shown again."""
    async with controlled() as (emulator, client):
        new = {"access_token": "act.ben", "refresh_token": None, "videos": ["7", "8"]}
        given = await client.done("PUT", "/accounts/-ben", new | {"access_token_expires_in": 0})
        assert given == {"open_id": "-ben", "access_token": "act.ben", "refresh_token": None}
        view = await client.done("GET", "/accounts/-ben")
        assert view == {
            "open_id": "-ben",
            "scope": "user.info.basic,video.list",
            "videos": 2,
            "refusal": None,
            "live_access_tokens": 0,
            "live_refresh_tokens": 0,
        }
        assert [each["open_id"] for each in await client.done("GET", "/accounts")] == [
            "ana",
            "-ben",
        ]
        made_up = await client.done("PUT", "/accounts/zoe", {})
        assert emulator.holds_access_token("zoe", made_up["access_token"])
        assert emulator.holds_refresh_token("zoe", made_up["refresh_token"])


# --- Record and reset ---


async def test_the_record_tells_what_was_asked_and_no_token():
    """Queries, token requests and revocations in order of arrival, with Unix times and totals."""
    async with controlled() as (_, client):
        began = time.time()
        await client.query(ANA_IDS[:2])
        pair = await client.refresh(client_secret=SECRET)
        await client.refresh(client_secret=SECRET)
        await client.query(token="act.unknown")
        url = f"{client.base_url}/v2/oauth/revoke/"
        form = {"client_key": "key", "client_secret": SECRET, "token": pair["access_token"]}
        await client.send("POST", url, data=form)
        record = await client.done("GET", "/record")
        assert [
            (each["kind"], each["open_id"], each["error_code"]) for each in record["requests"]
        ] == [
            ("query", "ana", "ok"),
            ("token", "ana", "ok"),
            ("token", "ana", "invalid_grant"),
            ("query", None, "access_token_invalid"),
            ("revoke", "ana", "ok"),
        ]
        assert record["requests"][0]["video_ids"] == ANA_IDS[:2]
        assert all(began - 1 < each["at"] < time.time() + 1 for each in record["requests"])
        assert record["totals"] == {
            "query": {"ok": 1, "access_token_invalid": 1},
            "token": {"ok": 1, "invalid_grant": 1},
            "revoke": {"ok": 1},
        }
        text = json.dumps(record)
        assert "act." not in text
        assert "rft." not in text
        assert SECRET not in text
        assert "digest" not in text
        assert (await client.done("GET", "/record?last=1"))["requests"] == record["requests"][-1:]
        assert (await client.done("GET", "/record?last=0"))["requests"] == []
        assert (await client.done("GET", "/record?last=99"))["requests"] == record["requests"]


async def test_the_record_is_emptied():
    """With its totals. What is served does not change."""
    async with controlled() as (_, client):
        await client.query()
        empty = {"totals": {"query": {}, "token": {}, "revoke": {}}, "requests": []}
        assert await client.done("DELETE", "/record") == empty
        assert await client.done("GET", "/record") == empty
        assert await client.error_code() == (200, "ok")


def test_memory_is_bounded_and_totals_count_on():
    """The list drops the oldest; the count keeps all."""
    arrivals = Arrivals()
    for number in range(RECORD_LENGTH + 5):
        arrivals.append(RevokeArrival(number, "ana", 200, "ok"))
    assert len(arrivals) == RECORD_LENGTH
    assert arrivals[0].at == 5
    assert arrivals.totals == {"ok": RECORD_LENGTH + 5}


async def test_all_begins_again():
    """Accounts, tokens, options and record are as at the start, the windows are empty."""
    async with controlled(rate_limit_per_token=1) as (emulator, client):
        await client.done("PATCH", "/options", {"latency_seconds": 0.01})
        await client.done("PUT", "/accounts/ben")
        await client.done("PATCH", "/accounts/ana", {"consent": "revoked"})
        await client.query()
        assert await client.done("DELETE") == {"accounts": 1}
        assert await client.error_code(ANA_IDS[:1]) == (200, "ok")
        assert await client.error_code() == (429, "rate_limit_exceeded")
        assert emulator.options.latency_seconds == 0
        assert len(emulator.record) == 2
        assert "ben" not in emulator.accounts
