"""Covers are fetched over real sockets: what counts as served, and what is never connected to."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from refresher import fetching
from refresher.domain.probing import Outcome
from refresher.fetching import Unreached, opened

PATH = "/tos-maliva/a~tplv:300.jpeg?x-expires=1&x-signature=Ab%2FcD%3D&c=%7e"
JPEG = "HTTP/1.1 206 Partial Content\r\nContent-Type: image/jpeg\r\nContent-Length: 1\r\n\r\nx"


class Host:
    """A server that answers each request with the same bytes, and remembers it."""

    def __init__(self, answer):
        self.answer = answer
        self.connections = 0
        self.requests = []

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if self.answer is None:
                await reader.read()
            writer.write(self.answer.encode())
            await writer.drain()
        except (OSError, EOFError, AttributeError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def host(answer=JPEG, tls=None):
    """The host, and its port."""
    it = Host(answer)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield it, server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def fetched(answer):
    """What comes of a cover on one's own TikTok that is answered so."""
    async with host(answer) as (it, port), opened() as fetcher:
        outcome = await fetcher.fetch(f"http://127.0.0.1:{port}{PATH}", is_local=True)
    return outcome, it


def reply(status, *headers, body="x"):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines) + "\r\n\r\n" + body


async def test_one_byte_is_asked_for_as_the_url_is_stored():
    """Nothing is encoded anew, and nothing says who asks but the product's name."""
    outcome, it = await fetched(JPEG)
    assert outcome is Outcome.SERVED
    (request,) = it.requests
    assert request.startswith(f"GET {PATH} HTTP/1.1\r\n")
    headers = dict(line.split(": ", 1) for line in request.splitlines()[1:-1])
    assert headers["Range"] == "bytes=0-0"
    assert headers["User-Agent"] == "cover-refresher"
    assert not {"Cookie", "Authorization", "Referer"} & set(headers)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (reply("200 OK", "Content-Type: image/jpeg"), Outcome.SERVED),
        (reply("200 OK", "Content-Type: application/octet-stream"), Outcome.SERVED),
        (reply("200 OK", "Content-Encoding: br", "Content-Type: image/webp"), Outcome.SERVED),
        (reply("200 OK", "Content-Type: text/html; charset=utf-8"), Outcome.REFUSED),
        (reply("403 Forbidden"), Outcome.REFUSED),
        (reply("404 Not Found"), Outcome.REFUSED),
        (reply("410 Gone"), Outcome.REFUSED),
        (reply("200 OK", "Content-Type: image/jpeg", body=""), Outcome.UNKNOWN),
        (reply("429 Too Many Requests"), Outcome.UNKNOWN),
        (reply("401 Unauthorized"), Outcome.UNKNOWN),
        (reply("500 Internal Server Error"), Outcome.UNKNOWN),
        (reply("503 Service Unavailable"), Outcome.UNKNOWN),
        ("", Outcome.UNKNOWN),
        ("nonsense\r\n\r\n", Outcome.UNKNOWN),
    ],
)
async def test_what_an_answer_says_about_a_cover(answer, outcome):
    """A page of HTML is no cover; trouble of the host says nothing."""
    assert (await fetched(answer))[0] is outcome


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_no_redirect_is_followed(status):
    """It might lead anywhere."""
    async with host() as (other, port):
        outcome, _ = await fetched(reply(status, f"Location: http://127.0.0.1:{port}/a"))
    assert outcome is Outcome.UNKNOWN
    assert other.connections == 0


async def test_a_large_cover_is_not_read():
    """A server need not heed the range: it can send no more than what its sockets hold."""
    sent = 0

    async def pour(reader, writer):
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536
        except OSError:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    async with server, opened() as fetcher:
        port = server.sockets[0].getsockname()[1]
        assert await fetcher.fetch(f"http://127.0.0.1:{port}/", is_local=True) is Outcome.SERVED
    assert sent < 64 << 20


async def test_a_host_that_hangs_is_not_waited_for(monkeypatch):
    """It says nothing about the cover."""
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.3)
    began = monotonic()
    outcome, it = await fetched(None)
    assert outcome is Outcome.UNKNOWN
    assert it.connections == 1
    assert monotonic() - began < fetching.CONNECT_SECONDS


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.0.0.1", "127.1", "2130706433"]
)
async def test_a_local_address_is_never_connected_to(name):
    """However it is spelled, and also where a name leads to it: it is skipped."""
    async with host() as (it, port), opened() as fetcher:
        for scheme in ("https", "http"):
            outcome = await fetcher.fetch(f"{scheme}://{name}:{port}{PATH}", is_local=False)
            # Some spellings are no URL at all to the client.
            assert outcome in {Outcome.SKIPPED, Outcome.UNKNOWN}
    assert it.connections == 0


async def test_a_host_that_cannot_be_reached_is_told_apart():
    """Where nobody is connected to, the way out may be blocked."""
    async with opened() as fetcher:
        with pytest.raises(Unreached, match="ConnectionRefusedError"):
            await fetcher.fetch("http://127.0.0.1:9/", is_local=True)
        with pytest.raises(Unreached, match="gaierror"):
            await fetcher.fetch("https://nowhere.invalid/", is_local=False)


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_certificate_is_looked_at(tmp_path, trusted):
    """As for any connection: one that nobody vouches for is refused."""
    authority = certify(tmp_path)
    trust = ssl.create_default_context(cafile=authority) if trusted else None
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority)
    async with host(tls=tls) as (it, port), opened(trust) as fetcher:
        fetching_it = fetcher.fetch(f"https://localhost:{port}{PATH}", is_local=True)
        if trusted:
            assert await fetching_it is Outcome.SERVED
        else:
            with pytest.raises(Unreached, match="SSLCertVerificationError"):
                await fetching_it
    assert len(it.requests) == int(trusted)


def certify(folder):
    """A file with a key and a certificate of its own for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    day = dt.timedelta(days=1)
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "authority.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file
