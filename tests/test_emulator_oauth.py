"""The emulated OAuth beside the renewal of tokens: consent, the exchange of its code, its end."""

import hashlib
from base64 import urlsafe_b64encode
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
import pytest

from refresher.emulator.authorization import AUTHORIZE_PATH
from refresher.emulator.options import CODE_LIFE_SECONDS, REFRESH_TOKEN_TTL_SECONDS
from refresher.tiktok.wire import REVOKE_PATH, TOKEN_PATH
from tests.test_emulator import ANA_IDS, Clock, served

WEB, DESKTOP = "https://app.test/callback", "http://127.0.0.1:3455/callback/"
VERIFIER = "a-verifier-of-more-than-forty-three-characters-0123"
HEX = hashlib.sha256(VERIFIER.encode()).hexdigest()
BASE64 = urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")


def address(client, **changes):
    """The authorization page, as an application would address it."""
    asked = {
        "client_key": "key",
        "response_type": "code",
        "scope": "user.info.basic,video.list",
        "redirect_uri": WEB,
        "state": "a state&",
    }
    return f"{client.base_url}{AUTHORIZE_PATH}?{urlencode(asked | changes)}"


async def sent_back(client, **changes):
    """The parameters with which the user comes back to the application."""
    url = address(client, **changes)
    status, headers, _ = await client.send("GET", url, allow_redirects=False)
    assert status == 302
    location = urlsplit(headers["Location"])
    back = f"{location.scheme}://{location.netloc}{location.path}"
    return back, {name: values[0] for name, values in parse_qs(location.query).items()}


async def consented(client, **changes):
    _, answer = await sent_back(client, open_id="ana", **changes)
    return answer["code"]


async def exchanged(client, code, **changes):
    form = {
        "client_key": "key",
        "client_secret": "secret",
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": WEB,
    }
    url = f"{client.base_url}{TOKEN_PATH}"
    _, _, body = await client.send("POST", url, data=form | changes)
    return msgspec.json.decode(body)


async def revoked(client, token="act.ana", **changes):
    form = {"client_key": "key", "client_secret": "secret", "token": token}
    return await client.send("POST", f"{client.base_url}{REVOKE_PATH}", data=form | changes)


# --- The authorization page ---


async def test_the_page_lets_one_choose_who_consents():
    """A link for each account, and one to deny; foreign text in it is no markup."""
    async with served() as (emulator, client):
        emulator.add_account("<b>&co", "act.bold")
        status, headers, body = await client.get(address(client, client_key="<i>"))
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        for words in (b"Continue as ana", b"Continue as &lt;b&gt;&amp;co", b"Deny", b"&lt;i&gt;"):
            assert words in body
        assert b"<b>" not in body
        assert b"open_id=%3Cb%3E%26co" in body


async def test_who_agrees_comes_back_with_a_code():
    """With the scopes and the state of the request; the account's tokens live on until then."""
    async with served() as (_, client):
        back, answer = await sent_back(client, open_id="ana")
        assert back == WEB
        assert answer.keys() == {"code", "scopes", "state"}
        assert (answer["scopes"], answer["state"]) == ("user.info.basic,video.list", "a state&")
        assert await client.error_code() == (200, "ok")


async def test_who_denies_comes_back_with_an_error():
    """And without a code."""
    async with served() as (emulator, client):
        _, answer = await sent_back(client, deny="1")
        assert answer.keys() == {"error", "error_description", "state"}
        assert answer["error"] == "access_denied"
        assert not emulator.consents


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_key": ""}, "client_key"),
        ({"client_key": "another"}, "client_key"),
        ({"response_type": "token"}, "response_type"),
        ({"scope": ""}, "scope"),
        ({"redirect_uri": ""}, "redirect_uri"),
        ({"redirect_uri": "app.test/callback"}, "absolute"),
        ({"redirect_uri": "javascript:alert(1)"}, "absolute"),
        ({"redirect_uri": "https://[app/"}, "a URL"),
        ({"redirect_uri": f"{WEB}?id=1"}, "parameters"),
        ({"redirect_uri": f"{WEB}#100"}, "fragment"),
        ({"redirect_uri": f"https://app.test/{'a' * 512}"}, "512"),
        ({"open_id": "zoe"}, "'zoe'"),
    ],
    ids=str,
)
async def test_a_wrong_request_for_consent_is_named(changes, words):
    """A page for the developer; nobody is sent anywhere."""
    async with served(client_key="key") as (_, client):
        status, headers, body = await client.send(
            "GET", address(client, **{"open_id": "ana"} | changes), allow_redirects=False
        )
        assert (status, "Location" in headers) == (400, False)
        assert words in body.decode()


# --- The exchange of a code ---


async def test_a_code_brings_a_pair():
    """It lives as the options say, serves what the user agreed to, and can be renewed."""
    clock = Clock()
    async with served(clock, access_token_ttl_seconds=100) as (emulator, client):
        code = await consented(client, scope="video.list")
        pair = await exchanged(client, code)
        assert pair.keys() == {
            *("access_token", "expires_in", "open_id", "refresh_expires_in"),
            *("refresh_token", "scope", "token_type"),
        }
        assert (pair["open_id"], pair["scope"], pair["expires_in"]) == ("ana", "video.list", 100)
        assert pair["refresh_expires_in"] == REFRESH_TOKEN_TTL_SECONDS
        assert len(await client.videos(ANA_IDS[:2], token=pair["access_token"])) == 2
        assert await client.error_code() == (401, "access_token_invalid")
        clock.now += 100
        assert await client.error_code(token=pair["access_token"]) == (401, "access_token_invalid")
        assert "error" not in await client.refresh(pair["refresh_token"])
        assert [arrival.open_id for arrival in emulator.token_record] == ["ana", "ana"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code": ""}, "invalid_request"),
        ({"redirect_uri": ""}, "invalid_request"),
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"code": "unknown"}, "invalid_grant"),
        ({"redirect_uri": f"{WEB}/"}, "invalid_grant"),
    ],
    ids=str,
)
async def test_a_wrong_exchange_brings_none(changes, error):
    """The tokens so far go on working."""
    async with served(client_key="key", client_secret="secret") as (_, client):
        code = await consented(client)
        answer = await exchanged(client, **{"code": code} | changes)
        assert answer["error"] == error
        assert answer.keys() == {"error", "error_description", "log_id"}
        assert await client.error_code() == (200, "ok")


async def test_a_code_works_once_and_for_five_minutes():
    """A used one, an old one and one that was tried with another redirect are all spent."""
    clock = Clock()
    async with served(clock) as (_, client):
        used, late, elsewhere = [await consented(client) for _ in range(3)]
        assert "error" not in await exchanged(client, used)
        assert (await exchanged(client, used))["error"] == "invalid_grant"
        await exchanged(client, elsewhere, redirect_uri=DESKTOP)
        assert (await exchanged(client, elsewhere))["error"] == "invalid_grant"
        clock.now += CODE_LIFE_SECONDS
        assert (await exchanged(client, late))["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("redirect_uri", "challenge", "verifier", "error"),
    [
        pytest.param(DESKTOP, HEX, VERIFIER, None, id="hex"),
        pytest.param(DESKTOP, BASE64, VERIFIER, "invalid_request", id="base64url"),
        pytest.param(DESKTOP, HEX, "another", "invalid_request", id="another"),
        pytest.param(DESKTOP, HEX, "", "invalid_request", id="none"),
        pytest.param(DESKTOP, "", "", None, id="no-challenge"),
        pytest.param(WEB, BASE64, VERIFIER, None, id="web"),
    ],
)
async def test_a_desktop_app_proves_itself_with_a_digest_in_hex(
    redirect_uri, challenge, verifier, error
):
    """As documented, unlike everywhere else; a challenge of a web app is not looked at."""
    async with served() as (_, client):
        code = await consented(client, redirect_uri=redirect_uri, code_challenge=challenge)
        answer = await exchanged(client, code, redirect_uri=redirect_uri, code_verifier=verifier)
        assert answer.get("error") == error


async def test_a_failed_exchange_leaves_the_code_as_it_is():
    """So that the application can try again."""
    async with served(token_failed_share=1) as (emulator, client):
        code = await consented(client)
        await exchanged_raw(client, code)
        assert code in emulator.consents


async def exchanged_raw(client, code):
    form = {"client_key": "key", "client_secret": "s", "grant_type": "authorization_code"}
    form |= {"code": code, "redirect_uri": WEB}
    status, _, body = await client.send("POST", f"{client.base_url}{TOKEN_PATH}", data=form)
    assert b"access_token" not in body
    return status


# --- The end of a consent ---


async def test_a_revoked_token_ends_the_whole_authorization():
    """An empty answer, or an empty object; then access token and refresh token are dead."""
    async with served(client_key="key", client_secret="secret") as (emulator, client):
        bodies = set()
        for number in range(20):
            emulator.add_account("ana", f"act.{number}", refresh_token=f"rft.{number}")
            status, headers, body = await revoked(client, f"act.{number}")
            assert (status, headers["Content-Type"]) == (200, "application/json")
            bodies.add(body)
            assert (await client.refresh(f"rft.{number}"))["error"] == "invalid_grant"
        assert bodies == {b"", b"{}"}
        assert await client.error_code(token="act.19") == (401, "access_token_invalid")
        assert await client.error_code(token="act.ben") == (200, "ok")
        assert {arrival.open_id for arrival in emulator.revoke_record} == {"ana"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"token": ""}, "invalid_request"),
        ({"client_key": ""}, "invalid_request"),
        ({"client_key": "wrong"}, "invalid_client"),
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"token": "act.unknown"}, "invalid_grant"),
        ({"token": "rft.ana"}, "invalid_grant"),
    ],
    ids=str,
)
async def test_a_wrong_revocation_ends_nothing(changes, error):
    """Its error is flat, as that of a token request."""
    async with served(client_key="key", client_secret="secret") as (emulator, client):
        _, _, body = await revoked(client, **changes)
        answer = msgspec.json.decode(body)
        assert answer["error"] == error
        assert answer.keys() == {"error", "error_description", "log_id"}
        assert await client.error_code() == (200, "ok")
        assert "error" not in await client.refresh()
        assert [arrival.error_code for arrival in emulator.revoke_record] == [error]


async def test_a_failed_revocation_ends_nothing():
    """The faults of token requests are those of revocations, too."""
    async with served(token_failed_share=1) as (_, client):
        await revoked(client)
        assert await client.error_code() == (200, "ok")


async def test_while_tiktok_is_down_nobody_consents_or_revokes():
    """A 503 page, as for everything else."""
    async with served() as (emulator, client):
        emulator.down = "failed"
        assert (await revoked(client))[0] == 503
        assert (await client.get(address(client)))[0] == 503
        emulator.down = None
        assert await client.error_code() == (200, "ok")


@pytest.mark.parametrize(("method", "path"), [("GET", REVOKE_PATH), ("POST", AUTHORIZE_PATH)])
async def test_another_method_is_an_unknown_path(method, path):
    """As TikTok says it."""
    async with served() as (_, client):
        status, _, body = await client.send(method, client.base_url + path)
        assert (status, msgspec.json.decode(body)["error"]["code"]) == (404, "unsupported_path")
