"""The client over real sockets: against the emulator, and against servers that misbehave."""

import asyncio
import traceback
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from refresher.domain.credentials import AppCredentials
from refresher.domain.errors import (
    AccessTokenRefused,
    ClientRefused,
    GrantRefused,
    NotSent,
    ScopeRefused,
    Throttled,
    UpstreamError,
    UpstreamFailed,
)
from refresher.emulator.options import EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.tiktok.client import LARGEST_ANSWER_BYTES, opened

TOKEN = "act.ana!4523.va"
IDS = [str(98_765_432_109_876_543_210 + n) for n in range(20)]
LONG, SHORT = 30.0, 0.2
OK = b'{"data":{"videos":[]},"error":{"code":"ok","message":"","log_id":""}}'


@asynccontextmanager
async def emulated(*, scope="video.list", **options):
    """An emulator with Ana's twenty videos, and a client of it."""
    emulator = Emulator(EmulatorOptions(**options))
    emulator.add_account("ana", TOKEN, scope=scope)
    for video_id in IDS:
        emulator.add_video("ana", video_id)
    async with emulator.serving() as base_url, opened(base_url, 4) as client:
        yield emulator, client


async def failure(client, timeout_seconds=LONG):
    with pytest.raises(UpstreamError) as raised:
        await client.query(TOKEN, IDS[:1], timeout_seconds)
    return raised.value


# --- The emulator ---


async def test_covers_come_as_they_are_and_can_be_seen():
    """Twenty videos are one request without a fault, and each URL serves its image."""
    async with emulated() as (emulator, client), aiohttp.ClientSession() as viewer:
        covers = await client.query(TOKEN, IDS, LONG)
        assert covers.keys() == set(IDS)
        for url in covers.values():
            async with viewer.get(URL(str(url), encoded=True)) as image:
                assert image.status == 200
        (arrival,) = emulator.record
        assert (arrival.breach, arrival.video_ids) == (None, tuple(IDS))


async def test_a_missing_video_is_left_out():
    """What TikTok does not know is not in the answer, and no error."""
    async with emulated() as (emulator, client):
        emulator.remove_video("ana", IDS[0])
        assert (await client.query(TOKEN, IDS[:2], LONG)).keys() == {IDS[1]}


@pytest.mark.parametrize(
    ("options", "kind", "status"),
    [
        ({"scope": "user.info.basic"}, ScopeRefused, 401),
        ({"throttled_share": 1}, Throttled, 429),
        ({"failed_share": 1}, UpstreamFailed, 500),
        ({"malformed_share": 1}, UpstreamFailed, 200),
    ],
    ids=["scope", "throttled", "failed", "malformed"],
)
async def test_failures_are_told_apart(options, kind, status):
    """Each is an error of its own kind, and all carry the log ID, body or no body."""
    async with emulated(**options) as (_, client):
        error = await failure(client)
        assert type(error) is kind
        assert error.status // 100 == status // 100
        assert error.log_id


async def test_a_revoked_token_is_refused():
    """The token was good, then it was not."""
    async with emulated() as (emulator, client):
        assert await client.query(TOKEN, IDS[:1], LONG)
        emulator.revoke_access_token("ana")
        error = await failure(client)
        assert type(error) is AccessTokenRefused
        assert (error.code, error.status) == ("access_token_invalid", 401)


async def test_an_answer_that_never_comes_times_out():
    """The request is given up when its time is over."""
    async with emulated(timeout_share=1) as (_, client):
        error = await failure(client, SHORT)
        assert (type(error), error.code, error.status) == (UpstreamFailed, "timed_out", 0)


@pytest.mark.parametrize("seconds", [0, -1.0])
async def test_no_time_left_is_not_for_ever(seconds):
    """A lease that ends just before the request leaves no time, which must not mean no limit."""
    async with emulated(timeout_share=1) as (_, client), asyncio.timeout(2):
        assert (await failure(client, seconds)).code == "timed_out"


async def test_a_throttle_tells_what_the_reply_wishes():
    """Retry-After is taken from the header, whatever its case."""
    async with emulated() as (emulator, client):
        emulator.answer_with = lambda _: web.Response(status=429, headers={"retry-after": "7"})
        error = await failure(client)
        assert isinstance(error, Throttled)
        assert error.retry_after_seconds == 7


async def test_a_server_that_is_not_there(unused_tcp_port):
    """A refused connection is a failure to be tried again, and says so."""
    async with opened(f"http://127.0.0.1:{unused_tcp_port}/", 1) as client:
        error = await failure(client)
        assert (type(error), error.code) == (NotSent, "connection_failed")
        assert error.detail.startswith(
            f"ClientConnectorError: Cannot connect to host 127.0.0.1:{unused_tcp_port}"
        )


async def test_a_token_that_fits_no_header_is_an_upstream_error():
    """An application stored a token with a newline: that account fails, as the contract says."""
    async with emulated() as (emulator, client):
        with pytest.raises(UpstreamError):
            await client.query(f"{TOKEN}\n", IDS[:1], LONG)
        assert not emulator.record


# --- Servers that misbehave ---


class Raw:
    """A server that answers every request with bytes, then closes or holds the connection."""

    def __init__(self, answer, *, hold=False, drip=False):
        self.answer = answer
        self.hold = hold
        self.drip = drip
        self.heads = []
        self.connections = []

    async def __call__(self, reader, writer):
        self.connections.append(asyncio.current_task())
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
                writer.write(self.answer)
                await writer.drain()
                while self.drip:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.01)
                if self.hold:
                    await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def raw(answer, **behaviour):
    served = Raw(answer, **behaviour)
    server = await asyncio.start_server(served, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # By name, because no cookie jar keeps the cookies of an address.
    async with server, opened(f"http://localhost:{port}", 1) as client:
        yield served, client
        await client._session.close()
        await asyncio.gather(*served.connections)


def head(status="200 OK", *lines, length=None):
    length_line = [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([f"HTTP/1.1 {status}", *length_line, *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"", "ServerDisconnectedError"),
        (b"HTTP/1.1 200", "ServerDisconnectedError"),
        (b"SSH-2.0-OpenSSH_9.7\r\n\r\n", "ClientResponseError"),
        (head(length=-1), "ClientResponseError"),
        (head("200 OK", "X-Long: " + 100_000 * "a", length=0), "ClientResponseError"),
        (head(length=len(OK) + 1) + OK, "ClientPayloadError"),
        (head("200 OK", "Transfer-Encoding: chunked") + b'5\r\n{"da', "ClientPayloadError"),
    ],
    ids=[
        "nothing",
        "cut-head",
        "no-http",
        "bad-length",
        "endless-header",
        "cut-body",
        "cut-chunk",
    ],
)  # fmt: skip
async def test_a_broken_answer_is_a_failed_connection(answer, detail):
    """Cut or garbled, it is no answer: to be tried again, and sent only once by us."""
    async with raw(answer) as (server, client):
        error = await failure(client)
        assert (type(error), error.code) == (UpstreamFailed, "connection_failed")
        assert error.detail == detail
        assert len(server.heads) == 1


@pytest.mark.parametrize(
    "answer",
    [
        head(length=LARGEST_ANSWER_BYTES + 1) + (LARGEST_ANSWER_BYTES + 1) * b" ",
        head("200 OK", "Transfer-Encoding: chunked") + 20 * (b"10000\r\n" + 65536 * b" " + b"\r\n"),
    ],
    ids=["announced", "chunked"],
)
async def test_an_endless_answer_is_not_read_to_its_end(answer):
    """A body too large for any answer is given up although more of it would come."""
    async with raw(answer, hold=True) as (_, client):
        error = await failure(client)
        assert (type(error), error.code) == (UpstreamFailed, "answer_too_large")
        assert error.status == 200


async def test_the_largest_answer_is_read():
    """Just as much as is allowed is still an answer."""
    padding = (LARGEST_ANSWER_BYTES - len(OK)) * b" "
    async with raw(head(length=LARGEST_ANSWER_BYTES) + OK + padding) as (_, client):
        assert await client.query(TOKEN, IDS[:1], LONG) == {}


@pytest.mark.parametrize(
    ("answer", "behaviour"),
    [(b"", "hold"), (head(length=9999), "hold"), (head(length=9999), "drip")],
    ids=["silence", "silence-after-the-head", "drops"],
)
async def test_a_slow_answer_times_out_as_a_whole(answer, behaviour):
    """Neither silence nor a byte now and then makes the time longer."""
    async with raw(answer, **{behaviour: True}) as (_, client):
        assert (await failure(client, SHORT)).code == "timed_out"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Again", "308 For Good"])
async def test_a_redirect_is_not_followed(status):
    """A redirect would carry the token elsewhere: it is a failure instead."""
    async with raw(head(length=len(OK)) + OK) as (elsewhere, other):
        location = f"Location: {other._base_url}/v2/video/query/"
        async with raw(head(status, location, length=0)) as (server, client):
            error = await failure(client)
        assert (type(error), error.status) == (UpstreamFailed, int(status[:3]))
        assert len(server.heads) == 1
        assert elsewhere.heads == []


async def test_no_cookie_is_ever_sent_back():
    """Accounts share a session, but nothing that a server wants to remember of one."""
    answer = head("200 OK", "Set-Cookie: who=ana", "Connection: close", length=len(OK)) + OK
    async with raw(answer) as (server, client):
        for _ in range(2):
            await client.query(TOKEN, IDS, LONG)
        assert len(server.heads) == 2
        assert b"cookie" not in server.heads[1].lower()


async def test_no_more_connections_than_the_concurrency():
    """With one connection, five queries wait for each other."""
    inside, most = 0, 0

    async def handle(request):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await request.read()
        await asyncio.sleep(0.01)
        inside -= 1
        return web.Response(body=OK)

    app = web.Application()
    app.router.add_post("/v2/video/query/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with opened(f"http://127.0.0.1:{port}", 1) as client:
        await asyncio.gather(*(client.query(TOKEN, IDS, LONG) for _ in range(5)))
    await runner.cleanup()
    assert most == 1


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n\r\n", head("401 No", length=0)])
async def test_no_error_shows_the_token(answer):
    """Neither an error nor what caused it holds the token, in a traceback either."""
    async with raw(answer) as (_, client):
        error = await failure(client)
    assert TOKEN not in "".join(traceback.format_exception(error)) + repr(error)


# --- The token endpoint ---

APP = AppCredentials("key-of-the-app", "secret-of-the-app")
REFRESH_TOKEN = "rft.ana!4523.va"


@asynccontextmanager
async def renewing(app=APP, **options):
    """An emulator that knows Ana's refresh token and our app, and a client of it."""
    emulator = Emulator(EmulatorOptions(client_key=APP.key, client_secret=APP.secret, **options))
    emulator.add_account("ana", TOKEN, refresh_token=REFRESH_TOKEN)
    async with emulator.serving() as base_url, opened(base_url, 4, app) as client:
        yield emulator, client


async def renewal_failure(client, token=REFRESH_TOKEN, timeout_seconds=LONG):
    with pytest.raises(UpstreamError) as raised:
        await client.renew_token(token, timeout_seconds)
    return raised.value


async def test_a_pair_is_renewed_and_the_old_refresh_token_is_used_up():
    """What comes back is alive; the second try with the old one is refused, whatever the status."""
    async with renewing(access_token_ttl_seconds=7200) as (emulator, client):
        pair = await client.renew_token(REFRESH_TOKEN, LONG)
        assert emulator.holds_access_token("ana", pair.access_token)
        assert emulator.holds_refresh_token("ana", pair.refresh_token)
        assert pair.access_token_lives_seconds == 7200
        error = await renewal_failure(client)
        assert (type(error), error.code) == (GrantRefused, "invalid_grant")
        assert error.log_id
        assert [arrival.answered for arrival in emulator.token_record] == [True, True]


async def test_the_wrong_app_is_nobodys_fault():
    """The refresh token goes on working for the right one."""
    async with renewing(AppCredentials("key-of-the-app", "another-secret")) as (emulator, client):
        assert type(await renewal_failure(client)) is ClientRefused
        assert emulator.holds_refresh_token("ana", REFRESH_TOKEN)


async def test_without_the_apps_credentials_nothing_is_asked():
    """The caller's mistake, not the API's."""
    async with renewing(None) as (emulator, client):
        with pytest.raises(ValueError, match="expected the app's client key and secret"):
            await client.renew_token(REFRESH_TOKEN, LONG)
        assert not emulator.token_record


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("token_timeout_share", "timed_out"),
        ("token_cut_share", "connection_failed"),
        ("token_malformed_share", "no_error_object"),
    ],
)
async def test_a_pair_that_got_lost_leaves_the_outcome_open(fault, code):
    """It was renewed, and nobody knows: no definite refusal, and no second request by itself."""
    async with renewing(**{fault: 1.0}) as (emulator, client):
        timeout_seconds = SHORT if code == "timed_out" else LONG
        error = await renewal_failure(client, timeout_seconds=timeout_seconds)
        assert (type(error), error.code) == (UpstreamFailed, code)
        assert len(emulator.token_record) == 1
        assert not emulator.holds_refresh_token("ana", REFRESH_TOKEN)


# --- The revoke endpoint ---


async def test_an_authorization_is_ended():
    """Access token and refresh token are dead; a second try finds nothing to revoke."""
    async with renewing() as (emulator, client):
        for number in range(10):  # an empty answer, or an empty object
            emulator.add_account("ana", f"act.{number}", refresh_token=f"rft.{number}")
            await client.revoke(f"act.{number}", LONG)
            assert not emulator.holds_access_token("ana", f"act.{number}")
            assert not emulator.holds_refresh_token("ana", f"rft.{number}")
        with pytest.raises(AccessTokenRefused) as raised:
            await client.revoke("act.9", LONG)
        assert raised.value.code == "invalid_grant"
        assert raised.value.log_id


async def test_the_wrong_app_ends_nothing():
    """The tokens go on working."""
    async with renewing(AppCredentials("key-of-the-app", "another-secret")) as (emulator, client):
        with pytest.raises(ClientRefused):
            await client.revoke(TOKEN, LONG)
        assert emulator.holds_access_token("ana", TOKEN)


async def test_a_token_that_no_header_takes_is_not_sent_to_be_revoked():
    """It was never TikTok's."""
    async with renewing() as (emulator, client):
        with pytest.raises(AccessTokenRefused, match="no_usable_access_token"):
            await client.revoke("act ana", LONG)
        assert not emulator.revoke_record


async def test_without_the_apps_credentials_nothing_is_revoked():
    """The caller's mistake, not the API's."""
    async with renewing(None) as (emulator, client):
        with pytest.raises(ValueError, match="expected the app's client key and secret"):
            await client.revoke(TOKEN, LONG)
        assert not emulator.revoke_record


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("token_timeout_share", "timed_out"),
        ("token_cut_share", "connection_failed"),
    ],
)
async def test_a_revocation_without_an_answer_leaves_the_outcome_open(fault, code):
    """It was revoked, and nobody knows: to be tried again."""
    async with renewing(**{fault: 1.0}) as (emulator, client):
        with pytest.raises(UpstreamFailed) as raised:
            await client.revoke(TOKEN, SHORT if code == "timed_out" else LONG)
        assert (type(raised.value), raised.value.code) == (UpstreamFailed, code)
        assert not emulator.holds_access_token("ana", TOKEN)


async def test_a_failed_revocation_says_so():
    """Nothing was revoked, and each way to say so is a failure to be tried again."""
    async with renewing(token_failed_share=1.0) as (emulator, client):
        for _ in range(20):
            with pytest.raises(UpstreamFailed):
                await client.revoke(TOKEN, LONG)
        assert emulator.holds_access_token("ana", TOKEN)


# --- Where requests go ---


async def test_a_redirect_takes_no_secret_elsewhere():
    """Neither the refresh token nor the app's secret is sent anywhere else."""
    async with raw(head(length=len(OK)) + OK) as (elsewhere, other):
        location = f"Location: {other._base_url}/v2/oauth/token/"
        async with raw(head("307 Again", location, length=0)) as (_, client):
            client._credentials = APP
            error = await renewal_failure(client)
        assert (type(error), error.status, elsewhere.heads) == (UpstreamFailed, 307, [])


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n\r\n", head("400 No", length=0)])
async def test_no_error_of_a_renewal_shows_a_secret(answer):
    """Neither the refresh token nor the app's secret, in a traceback either."""
    async with raw(answer) as (_, client):
        client._credentials = APP
        error = await renewal_failure(client)
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(APP)
    assert not [secret for secret in (REFRESH_TOKEN, APP.key, APP.secret) if secret in shown]
