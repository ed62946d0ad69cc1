"""Sending queries: a thin aiohttp session around the wire module."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
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
    Request,
    build_query,
    build_token_request,
    read_answer,
    read_token_answer,
)

#: Twenty covers take about 10 kB; a body past this is no answer.
LARGEST_ANSWER_BYTES: Final = 1 << 20
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
        return read_answer(*await self._send(request, timeout_seconds))

    async def refresh_token(
        self, open_id: str, refresh_token: str, timeout_seconds: float
    ) -> TokenPair:
        """A new pair of tokens for the account; the old refresh token may be dead from now on.

        Raises `UpstreamError`; `UpstreamFailed` itself, not its kinds, leaves open whether it is.
        ValueError without the app's own credentials.
        """
        if self._client is None:
            raise ValueError("expected the app's client key and secret")
        request = build_token_request(self._client.key, self._client.secret, refresh_token)
        return read_token_answer(*await self._send(request, timeout_seconds), open_id)

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


@asynccontextmanager
async def opened(
    base_url: str, concurrency: int, client: Client | None = None
) -> AsyncIterator[TikTok]:
    """A client over a session of its own, `concurrency` connections at most."""
    async with ClientSession(
        connector=TCPConnector(limit=concurrency, ttl_dns_cache=60),
        cookie_jar=DummyCookieJar(),  # accounts must not meet in a cookie
    ) as session:
        yield TikTok(session, base_url, client)
