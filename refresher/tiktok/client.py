"""Sending requests: a thin aiohttp session around the modules that know what the bytes mean."""

import math
import time
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
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

from refresher.domain.credentials import AppCredentials
from refresher.domain.errors import NotSent, UpstreamFailed
from refresher.domain.model import TokenPair
from refresher.tiktok.failures import read_error
from refresher.tiktok.query_answer import read_answer
from refresher.tiktok.revoke_answer import read_revocation
from refresher.tiktok.times import sent_at
from refresher.tiktok.token_answer import read_token_answer
from refresher.tiktok.wire import (
    GREETING,
    LOG_ID_HEADER,
    Request,
    build_query,
    build_revocation,
    build_token_request,
)

#: Twenty covers take about 10 kB; a body past this is no answer.
LARGEST_ANSWER_BYTES: Final = 1 << 20
#: Named, because aiohttp asks for more encodings where a library is installed.
ASKED_ENCODING: Final = "gzip"
UNPACKED_ENCODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
#: Tells zlib to read the header of either format.
GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
TIMED_OUT: Final = "timed_out"
LONGEST_DETAIL: Final = 200


@dataclass(frozen=True, slots=True)
class Greeted:
    """How the API answers somebody whom it does not know."""

    status: int
    #: TikTok's error code; empty if the answer has none.
    code: str
    #: Unix time by the server's clock; NaN if it does not tell.
    sent_at: float


class TikTok:
    """The API as the flow needs it."""

    def __init__(
        self, session: ClientSession, base_url: str, credentials: AppCredentials | None = None
    ) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._credentials = credentials
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

    async def renew_token(self, refresh_token: str, timeout_seconds: float) -> TokenPair:
        """A new pair of tokens. The old refresh token may be dead from now on.

        The pair may be another account's. Raises `UpstreamError`; `UpstreamFailed` itself, not its
        kinds, leaves open whether the old refresh token is dead. ValueError without app
        credentials.
        """
        app = self._app()
        request = build_token_request(app.key, app.secret, refresh_token)
        return read_token_answer(*await self._send(request, timeout_seconds), time.time())

    async def revoke(self, access_token: str, timeout_seconds: float) -> None:
        """End the app's authorization by the token's user. Sent once.

        Raises `UpstreamError`. `AccessTokenRefused`: the token was dead before, so nothing was
        revoked by this. `UpstreamFailed` itself, not its kinds, leaves open whether it was.
        ValueError without app credentials.
        """
        app = self._app()
        request = build_revocation(app.key, app.secret, access_token)
        read_revocation(*await self._send(request, timeout_seconds), time.time())

    def _app(self) -> AppCredentials:
        if self._credentials is None:
            raise ValueError("expected the app's client key and secret")
        return self._credentials

    async def greet(self, timeout_seconds: float) -> "Greeted":
        """How the API answers a request without a token, which costs nobody's quota.

        Raises `UpstreamFailed`.
        """
        status, headers, body = await self._send(GREETING, timeout_seconds)
        error = read_error(body)
        return Greeted(status, error.code if error else "", sent_at(headers, math.nan))

    def _url_of(self, path_and_query: str) -> URL:
        return URL(self._base_url + path_and_query, encoded=True)

    async def _send(
        self, request: Request, timeout_seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        if timeout_seconds <= 0:
            raise UpstreamFailed(TIMED_OUT)  # aiohttp takes 0 as no time-out
        try:
            return await self._post(request, timeout_seconds)
        except TimeoutError as error:
            raise UpstreamFailed(TIMED_OUT) from error
        except ClientConnectorError as error:
            raise NotSent("connection_failed", detail=_detail(error)) from error
        except (ClientError, OSError) as error:
            raise UpstreamFailed("connection_failed", detail=_detail(error)) from error

    async def _post(
        self, request: Request, timeout_seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        async with self._session.post(
            self._url(request.path_and_query),
            # aiohttp would wrap the bytes so, too, but look the class up first: that takes a tenth
            # of the time of a request.
            data=BytesPayload(request.body),
            headers=request.headers,
            timeout=self._timeout(timeout_seconds),
            allow_redirects=False,  # a redirect would send the token elsewhere
        ) as response:
            body = await _read_body(response)
            if body and "Content-Encoding" in response.headers:
                body = _unpacked(response, body)
        return response.status, response.headers, body


def _detail(error: Exception) -> str:
    """The kind of error. Only for a failed connection also its text: where to, and why."""
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
    """The body as it was before it was compressed. Raises `UpstreamFailed` where it cannot be."""
    encoding = ", ".join(response.headers.getall("Content-Encoding")).strip().lower()
    if encoding == "identity":
        return packed
    try:
        if encoding in UNPACKED_ENCODINGS:
            return _inflated(packed, response.status)
    except zlib.error:
        pass
    if response.status == HTTPStatus.TOO_MANY_REQUESTS:
        return b""  # the status says enough
    raise UpstreamFailed(
        "unreadable_encoding",
        status=response.status,
        log_id=response.headers.get(LOG_ID_HEADER, "")[:LONGEST_DETAIL],
        detail=encoding[:LONGEST_DETAIL],
    )


def _inflated(packed: bytes, status: int) -> bytes:
    """Raises `zlib.error`, and `UpstreamFailed` for more bytes than any answer has."""
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
    base_url: str, concurrency: int, credentials: AppCredentials | None = None
) -> AsyncIterator[TikTok]:
    """A client over a session of its own, `concurrency` connections at most."""
    async with ClientSession(
        connector=TCPConnector(limit=concurrency, ttl_dns_cache=60),
        cookie_jar=DummyCookieJar(),  # accounts must not meet in a cookie
        headers={"Accept-Encoding": ASKED_ENCODING},
        # aiohttp would fail on an answer that it cannot unpack, and hide its status and headers.
        auto_decompress=False,
    ) as session:
        yield TikTok(session, base_url, credentials)
