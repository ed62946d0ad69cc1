"""Sending queries: a thin aiohttp session around the wire module."""

import time
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from typing import Final

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.payload import BytesPayload
from yarl import URL

from refresher.domain.errors import NotSent, UpstreamFailed
from refresher.domain.model import TokenPair
from refresher.tiktok.wire import (
    LOG_ID_HEADER,
    Request,
    build_query,
    build_token_request,
    read_answer,
    read_token_answer,
)

#: Twenty covers take about 10 kB; a body past this is no answer.
LARGEST_ANSWER_BYTES: Final = 1 << 20
#: Asked for by name, as aiohttp asks for more where a library is installed.
ASKED_ENCODING: Final = "gzip"
UNPACKED_ENCODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
#: To zlib: by the header of either format.
GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
TIMED_OUT: Final = "timed_out"
LONGEST_DETAIL: Final = 200
FINGERPRINT_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Client:
    """The app's own credentials."""

    key: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Tells these credentials from others, and nothing else of them."""
        both = f"{self.key}\0{self.secret}".encode()
        return sha256(both).hexdigest()[:FINGERPRINT_DIGITS]


class TikTok:
    """The API as the flow needs it."""

    def __init__(self, session: ClientSession, base_url: str, client: Client | None = None) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._client = client
        self._url = cache(self._url_of)
        self._timeout = cache(ClientTimeout)

    async def query(
        self, access_token: str, video_ids: Sequence[str], timeout_seconds: float
    ) -> dict[str, object]:
        """The covers of at most 20 videos: video ID to `cover_image_url`.

        Raises `UpstreamError`. Sent once: to try again, the caller needs another slot.
        """
        request = build_query(access_token, video_ids)
        answer = await self._send(request, timeout_seconds)
        return read_answer(*answer, video_ids, time.time())

    async def refresh_token(self, refresh_token: str, timeout_seconds: float) -> TokenPair:
        """A new pair of tokens, of whatever account; the old refresh token may be dead from now on.

        Raises `UpstreamError`; `UpstreamFailed` itself, not its kinds, leaves open whether it is.
        ValueError without the app's own credentials.
        """
        if self._client is None:
            raise ValueError("expected the app's client key and secret")
        request = build_token_request(self._client.key, self._client.secret, refresh_token)
        return read_token_answer(*await self._send(request, timeout_seconds), time.time())

    def _url_of(self, path_and_query: str) -> URL:
        return URL(self._base_url + path_and_query, encoded=True)

    async def _send(
        self, request: Request, timeout_seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        if timeout_seconds <= 0:
            raise UpstreamFailed(TIMED_OUT)  # to aiohttp, 0 is for ever
        try:
            async with self._session.post(
                self._url(request.path_and_query),
                # As aiohttp would wrap it, after asking its registry of payloads each time: a tenth
                # of what a request costs.
                data=BytesPayload(request.body),
                headers=request.headers,
                timeout=self._timeout(timeout_seconds),
                allow_redirects=False,  # a redirect would carry the token elsewhere
            ) as response:
                body = await _read_body(response)
                if body and "Content-Encoding" in response.headers:
                    body = _unpacked(response, body)
        except TimeoutError as error:
            raise UpstreamFailed(TIMED_OUT) from error
        except ClientConnectorError as error:
            raise NotSent("connection_failed", detail=_detail(error)) from error
        except (ClientError, OSError) as error:
            raise UpstreamFailed("connection_failed", detail=_detail(error)) from error
        return response.status, response.headers, body


def _detail(error: Exception) -> str:
    """What kind of error; of a failed connection also where to and why, else no foreign text."""
    kind = type(error).__name__
    return f"{kind}: {error}"[:LONGEST_DETAIL] if isinstance(error, ClientConnectorError) else kind


async def _read_body(response: ClientResponse) -> bytes:
    body = b""
    while part := await response.content.readany():
        body += part
        if len(body) > LARGEST_ANSWER_BYTES:
            raise UpstreamFailed("answer_too_large", status=response.status)
    return body


def _unpacked(response: ClientResponse, packed: bytes) -> bytes:
    """The body as it was before it was compressed. Raises `UpstreamFailed` where we cannot tell."""
    encoding = ", ".join(response.headers.getall("Content-Encoding")).strip().lower()
    if encoding == "identity":
        return packed
    try:
        if encoding in UNPACKED_ENCODINGS:
            return _inflated(packed, response.status)
    except zlib.error:
        pass
    if response.status == HTTPStatus.TOO_MANY_REQUESTS:
        return b""  # it speaks for itself
    raise UpstreamFailed(
        "unreadable_encoding",
        status=response.status,
        log_id=response.headers.get(LOG_ID_HEADER, "")[:LONGEST_DETAIL],
        detail=encoding[:LONGEST_DETAIL],
    )


def _inflated(packed: bytes, status: int) -> bytes:
    """Raises `zlib.error`, and `UpstreamFailed` where there is more in it than in any answer."""
    body = b""
    while packed:
        member = zlib.decompressobj(GZIP_OR_ZLIB)
        body += member.decompress(packed, LARGEST_ANSWER_BYTES + 1 - len(body))
        if len(body) > LARGEST_ANSWER_BYTES:
            raise UpstreamFailed("answer_too_large", status=status)
        if not member.eof:
            raise zlib.error("cut")
        packed = member.unused_data
    return body


@asynccontextmanager
async def opened(
    base_url: str, concurrency: int, client: Client | None = None
) -> AsyncIterator[TikTok]:
    """A client over a session of its own, `concurrency` connections at most."""
    async with ClientSession(
        connector=TCPConnector(limit=concurrency, ttl_dns_cache=60),
        cookie_jar=DummyCookieJar(),  # accounts must not meet in a cookie
        headers={"Accept-Encoding": ASKED_ENCODING},
        # It gives up an answer that it cannot read before anybody has seen status and headers.
        auto_decompress=False,
    ) as session:
        yield TikTok(session, base_url, client)
